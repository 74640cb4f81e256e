"""The outside world: the warehouse, the home folder, the device. Knows no asset."""
