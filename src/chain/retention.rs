//! Which exports of a chain are kept: the newest full ones, and every increment since the oldest of them.

use crate::chain::root::ChainExport;

/// The finished exports that may go when `keep` full ones stay, of finished exports by number.
pub(crate) fn expired(finished: &[ChainExport], keep: u64) -> Vec<ChainExport> {
    let full: Vec<u64> = finished.iter().map(|export| export.link.number).filter(|n| is_full(finished, *n)).collect();
    let Some(excess) = full.len().checked_sub(usize::try_from(keep).unwrap_or(usize::MAX)) else { return Vec::new() };
    let Some(oldest_kept) = full.get(excess) else { return Vec::new() };
    finished.iter().filter(|export| export.link.number < *oldest_kept).cloned().collect()
}

/// Whether the export of this number is a full one.
fn is_full(finished: &[ChainExport], number: u64) -> bool {
    finished.iter().any(|export| export.link.number == number && export.link.full == number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::chain_link::ChainLink;

    /// Exports of these numbers, each with that of its full one.
    fn exports(links: &[(u64, u64)]) -> Vec<ChainExport> {
        let of = |(number, full): &(u64, u64)| ChainExport {
            name: number.to_string(),
            link: ChainLink { chain: "c".into(), number: *number, full: *full },
            plan_id: String::new(),
            baseline: None,
            finished: true,
        };
        links.iter().map(of).collect()
    }

    /// What is older than the oldest full export that is kept goes; nothing does while there are too few.
    #[test]
    fn the_newest_full_exports_are_kept_with_all_behind_them() {
        let chain = exports(&[(1, 1), (2, 1), (3, 3), (4, 3), (5, 5)]);
        let gone = |keep| expired(&chain, keep).into_iter().map(|export| export.link.number).collect::<Vec<_>>();
        assert_eq!(gone(1), [1, 2, 3, 4]);
        assert_eq!(gone(2), [1, 2]);
        assert!(gone(3).is_empty() && gone(9).is_empty());
        assert!(expired(&exports(&[(4, 3), (5, 3)]), 1).is_empty());
    }
}
