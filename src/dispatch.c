/* dispatch.c - which instruction sets this machine has. */

#include "isas.h"

#if X86_64
#include <cpuid.h>
#endif

#if ARM64 && defined(__linux__)
#include <sys/auxv.h>
#endif

int fastgru_has_dot(const struct fastgru_kernels *kernels)
{
#if X86_64
    unsigned eax, ebx, ecx, edx;
    if (kernels == &fastgru_kernels_avx512)
        return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ecx & 1u << 11);  /* AVX512_VNNI */
    return kernels == &fastgru_kernels_avx2 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)
        && (eax & 1u << 4);          /* AVX-VNNI */
#elif ARM64 && defined(__linux__)
    (void)kernels;
    return (getauxval(AT_HWCAP) & 1ul << 20) != 0;  /* ASIMDDP */
#elif ARM64 && defined(__APPLE__)
    (void)kernels;
    return 1;                        /* every such processor of theirs */
#else
    (void)kernels;
    return 0;
#endif
}

const struct fastgru_kernels *fastgru_kernels_at(int index)
{
#if X86_64
#if defined(__clang__) || __GNUC__ < 11  /* Clang 14 does not know the name f16c */
    unsigned eax, ebx, ecx, edx;
    const int f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
#else
    const int f16c = __builtin_cpu_supports("f16c");
#endif
    const int avx2 = f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && index-- == 0)
        return &fastgru_kernels_avx512;
    if (avx2 && index-- == 0)
        return &fastgru_kernels_avx2;
    return index == 0 ? &fastgru_kernels_sse2 : NULL;
#elif ARM64
    return index == 0 ? &fastgru_kernels_neon : NULL;
#else
    return index == 0 ? &fastgru_kernels_generic : NULL;
#endif
}
