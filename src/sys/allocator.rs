//! Memory that is free, given back to the system. glibc keeps what a burst of large blocks has left: each one that is freed
//! raises the size from which blocks are mapped by themselves, up to 32 MiB, so that later ones come from its arenas, and stay
//! there when they are free.

/// Bytes of anonymous memory in use by this process; `None` where the system does not tell.
pub(crate) fn anonymous_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').skip(1).map_while(|number| number.parse::<u64>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

/// Gives the free pages of all arenas back to the system. Blocks: it locks one arena after the other.
#[cfg(target_env = "gnu")]
pub(crate) fn release_free_memory() {
    // SAFETY: it takes the locks of the allocator, and touches free memory only.
    unsafe { libc::malloc_trim(0) };
}

/// Does nothing: other allocators give free memory back by themselves, or cannot be asked.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn release_free_memory() {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks that were freed between others are given back. Tests beside it take and give back memory of their own, so it is
    /// tried a few times.
    #[test]
    #[cfg(target_env = "gnu")]
    fn free_memory_is_given_back() {
        let is_given_back = |_| {
            // Freed, it makes blocks of up to its size come from the arenas.
            drop(vec![1_u8; 30 << 20]);
            let mut blocks: Vec<Vec<u8>> = (0..640).map(|_| vec![1_u8; 100 << 10]).collect();
            let full = anonymous_bytes().unwrap();
            let mut number = 0;
            blocks.retain(|_| {
                number += 1;
                number % 8 == 0
            });
            release_free_memory();
            assert_eq!(blocks.len(), 80);
            anonymous_bytes().unwrap() + (30 << 20) < full
        };
        assert!((0..20).any(is_given_back));
    }
}
