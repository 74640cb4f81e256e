"""The journal: what users did, raters said and experiments applied to, durable before anybody is told so."""
