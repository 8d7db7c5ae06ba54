/* Lets one allocation fail, and counts what is allocated. Loaded before the C library, and asked through ctypes. */

#include <errno.h>
#include <stddef.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t), __libc_free(void *);

static long left;   /* allocations until the one that fails, itself among them; 0: none fails */
static long failed; /* has the last one that was to fail? */
static long spared; /* bytes of allocations that neither fail nor count; 0: there are none */
static long blocks; /* allocated and not yet freed */

/* Lets the allocation of this number, from 1 on, fail; none for 0. Those of `spare` bytes do not count. */
void heap_fail(long allocation, long spare)
{
    spared = spare;
    if (allocation)
        __atomic_store_n(&failed, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&left, allocation, __ATOMIC_SEQ_CST);
}

long heap_failed(void)
{
    return __atomic_load_n(&failed, __ATOMIC_SEQ_CST);
}

long heap_blocks(void)
{
    return __atomic_load_n(&blocks, __ATOMIC_SEQ_CST);
}

static int fails(size_t size)
{
    if (size == (size_t)spared)
        return 0;
    if (__atomic_load_n(&left, __ATOMIC_SEQ_CST) <= 0 || __atomic_sub_fetch(&left, 1, __ATOMIC_SEQ_CST))
        return 0;
    __atomic_store_n(&failed, 1, __ATOMIC_SEQ_CST);
    errno = ENOMEM;
    return 1;
}

static void *counted(void *memory)
{
    if (memory)
        __atomic_add_fetch(&blocks, 1, __ATOMIC_SEQ_CST);
    return memory;
}

void *malloc(size_t size)
{
    return fails(size) ? NULL : counted(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return fails(count * size) ? NULL : counted(__libc_calloc(count, size));
}

void *realloc(void *memory, size_t size)
{
    if (!memory)
        return malloc(size);
    return fails(size) ? NULL : __libc_realloc(memory, size ? size : 1);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return fails(size) ? NULL : counted(__libc_memalign(alignment, size));
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    void *found = aligned_alloc(alignment, size);
    if (found)
        *memory = found;
    return found ? 0 : ENOMEM;
}

void free(void *memory)
{
    if (memory)
        __atomic_sub_fetch(&blocks, 1, __ATOMIC_SEQ_CST);
    __libc_free(memory);
}
