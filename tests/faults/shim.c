/* Fails the N-th operation that writes below a folder, once or from then on. Preloaded before libc.
 *
 * Counted are writes of every kind, fsync, truncation, renaming and the making of files. Nothing is counted before
 * fault_arm() was called, so that a process can import what it needs first and fork.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long counted, failing;
static int error_number, for_good, armed;

void fault_arm(const char *below, long number, int error, int forever) {
    snprintf(folder, sizeof folder, "%s/", below);
    counted = 0;
    failing = number;
    error_number = error;
    for_good = forever;
    armed = 1;
}

long fault_count(void) { return counted; }

static int fails(void) {
    counted++;
    return counted == failing || (for_good && counted > failing && failing > 0);
}

static int below(const char *path) {
    char whole[PATH_MAX];
    if (!armed || path == NULL) return 0;
    if (path[0] != '/') {
        if (getcwd(whole, sizeof whole) == NULL) return 0;
        strncat(whole, "/", sizeof whole - strlen(whole) - 1);
        strncat(whole, path, sizeof whole - strlen(whole) - 1);
        path = whole;
    }
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int file_fails(int file) {
    char link[64], path[PATH_MAX];
    int saved = errno;
    ssize_t length;
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    if (!below(path) || !fails()) return 0;
    errno = error_number;
    return 1;
}

static int path_fails(const char *path) {
    if (!below(path) || !fails()) return 0;
    errno = error_number;
    return 1;
}

#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

ssize_t write(int f, const void *b, size_t n) {
    return file_fails(f) ? -1 : REAL(ssize_t, write, int, const void *, size_t)(f, b, n);
}
ssize_t pwrite(int f, const void *b, size_t n, off_t o) {
    return file_fails(f) ? -1 : REAL(ssize_t, pwrite, int, const void *, size_t, off_t)(f, b, n, o);
}
ssize_t pwrite64(int f, const void *b, size_t n, off64_t o) {
    return file_fails(f) ? -1 : REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t)(f, b, n, o);
}
ssize_t writev(int f, const struct iovec *v, int n) {
    return file_fails(f) ? -1 : REAL(ssize_t, writev, int, const struct iovec *, int)(f, v, n);
}
ssize_t sendfile(int to, int from, off_t *o, size_t n) {
    return file_fails(to) ? -1 : REAL(ssize_t, sendfile, int, int, off_t *, size_t)(to, from, o, n);
}
ssize_t sendfile64(int to, int from, off64_t *o, size_t n) {
    return file_fails(to) ? -1 : REAL(ssize_t, sendfile64, int, int, off64_t *, size_t)(to, from, o, n);
}
ssize_t copy_file_range(int from, off64_t *i, int to, off64_t *o, size_t n, unsigned flags) {
    return file_fails(to) ? -1
                          : REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned)(from, i, to, o, n, flags);
}
/* Nothing here is to survive a power cut, and a busy disk takes seconds. */
int fsync(int f) { return file_fails(f) ? -1 : 0; }
int fdatasync(int f) { return file_fails(f) ? -1 : 0; }
int ftruncate(int f, off_t n) { return file_fails(f) ? -1 : REAL(int, ftruncate, int, off_t)(f, n); }
int ftruncate64(int f, off64_t n) { return file_fails(f) ? -1 : REAL(int, ftruncate64, int, off64_t)(f, n); }
int rename(const char *a, const char *b) {
    return path_fails(b) ? -1 : REAL(int, rename, const char *, const char *)(a, b);
}
int renameat(int x, const char *a, int y, const char *b) {
    return path_fails(b) ? -1 : REAL(int, renameat, int, const char *, int, const char *)(x, a, y, b);
}

#define OPEN(name)                                                             \
    int name(const char *path, int flags, ...) {                               \
        mode_t mode = 0;                                                       \
        if (flags & O_CREAT) {                                                 \
            va_list more;                                                      \
            va_start(more, flags);                                             \
            mode = va_arg(more, mode_t);                                       \
            va_end(more);                                                      \
            if (path_fails(path)) return -1;                                   \
        }                                                                      \
        return REAL(int, name, const char *, int, mode_t)(path, flags, mode);  \
    }
OPEN(open)
OPEN(open64)
