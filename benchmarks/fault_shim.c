// Preloaded by fault_server.py: at the n-th change of a file under a folder the process is killed, killed with half of
// it written, or told that the disk is full from then on; and the clock may be shifted. Nothing happens until it is armed.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { COUNT, KILL, TORN, FULL };
static char under[4096], without[256];
static long n_left, n_seen, shift;
static int how = COUNT, armed = 0;

void fault_arm(const char *folder, const char *except, long nth, int fault) {
    strncpy(under, folder, sizeof under - 1);
    strncpy(without, except, sizeof without - 1);
    n_left = nth, how = fault, n_seen = 0, armed = 1;
}
void fault_clock(long seconds) { shift = seconds; }
long fault_seen(void) { return n_seen; }

static int ours(const char *path) {
    return path && !strncmp(path, under, strlen(under)) && !(*without && strstr(path, without));
}
static int open_file(int fd) {
    char link[64], path[4096];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return ours(path);
}
// 1 where the n-th change is reached, or passed on a disk that is full
static int due(void) {
    __sync_fetch_and_add(&n_seen, 1);
    if (how == COUNT) return 0;
    long left = __sync_sub_and_fetch(&n_left, 1);
    if (how == FULL) return left <= 0;
    if (left == 0 && how == KILL) kill(getpid(), SIGKILL);
    return left == 0;
}
#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define REFUSE do { errno = ENOSPC; return -1; } while (0)

ssize_t write(int fd, const void *data, size_t n) {
    REAL(write);
    if (open_file(fd) && due()) {
        if (how == FULL) REFUSE;
        real(fd, data, n / 2), kill(getpid(), SIGKILL);
    }
    return real(fd, data, n);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    REAL(pwrite64);
    if (open_file(fd) && due()) {
        if (how == FULL) REFUSE;
        real(fd, data, n / 2, at), kill(getpid(), SIGKILL);
    }
    return real(fd, data, n, at);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return pwrite64(fd, data, n, at); }
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev);
    if (open_file(fd) && due()) {
        if (how == FULL) REFUSE;
        real(fd, parts, n / 2), kill(getpid(), SIGKILL);
    }
    return real(fd, parts, n);
}
// no bytes are torn here: the process is killed before
#define MOVED(path) if (armed && ours(path) && due() && how == TORN) kill(getpid(), SIGKILL)
int rename(const char *from, const char *to) { REAL(rename); MOVED(to); return real(from, to); }
int link(const char *from, const char *to) { REAL(link); MOVED(to); return real(from, to); }
int unlink(const char *path) { REAL(unlink); MOVED(path); return real(path); }
int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    if (open_file(fd) && due() && how == TORN) kill(getpid(), SIGKILL);
    return real(fd, size);
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += shift;
    return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    REAL(gettimeofday);
    int failed = real(now, zone);
    if (!failed) now->tv_sec += shift;
    return failed;
}
time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}
