// Preloaded into the binary: the system call of number FAIL_AT fails once, with the error FAIL_ERR. Only calls that open a
// path with FAIL_PATH in it are counted, and calls on files, but for those on the standard streams. Its kind goes to FAIL_LOG.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;

static int number(const char *name, int missing) {
    char *text = getenv(name);
    return text ? atoi(text) : missing;
}

static int fails(const char *kind) {
    if (atomic_fetch_add(&calls, 1) != number("FAIL_AT", -1)) return 0;
    int (*open_log)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    ssize_t (*write_log)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    int log = open_log(getenv("FAIL_LOG"), O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (write_log(log, kind, strlen(kind)) < 0) abort();
    close(log);
    errno = number("FAIL_ERR", EIO);
    return 1;
}

#define CALL(result, name, parameters, arguments)                    \
    result name parameters {                                         \
        static result(*own) parameters;                              \
        if (!own) own = (result(*) parameters)dlsym(RTLD_NEXT, #name); \
        return fails(#name) ? (result)-1 : own arguments;            \
    }

CALL(ssize_t, read, (int f, void *b, size_t l), (f, b, l))
CALL(ssize_t, pread64, (int f, void *b, size_t l, off64_t a), (f, b, l, a))
CALL(ssize_t, pwrite64, (int f, const void *b, size_t l, off64_t a), (f, b, l, a))
CALL(ssize_t, writev, (int f, const struct iovec *v, int c), (f, v, c))
CALL(int, fsync, (int f), (f))
CALL(int, fdatasync, (int f), (f))
CALL(int, rename, (const char *a, const char *b), (a, b))
CALL(int, ftruncate64, (int f, off64_t a), (f, a))
CALL(int, unlink, (const char *p), (p))
CALL(int, mkdir, (const char *p, mode_t m), (p, m))

ssize_t write(int f, const void *b, size_t l) {
    static ssize_t (*own)(int, const void *, size_t);
    if (!own) own = dlsym(RTLD_NEXT, "write");
    return f > 2 && fails("write") ? -1 : own(f, b, l);
}

int open64(const char *path, int flags, ...) {
    static int (*own)(const char *, int, ...);
    if (!own) own = dlsym(RTLD_NEXT, "open64");
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    char *counted = getenv("FAIL_PATH");
    return counted && strstr(path, counted) && fails("open64") ? -1 : own(path, flags, mode);
}

void *mmap64(void *at, size_t l, int p, int flags, int f, off64_t a) {
    static void *(*own)(void *, size_t, int, int, int, off64_t);
    if (!own) own = dlsym(RTLD_NEXT, "mmap64");
    return f >= 0 && fails("mmap64") ? MAP_FAILED : own(at, l, p, flags, f, a);
}
