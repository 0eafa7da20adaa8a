//! Shares of a bounded resource: what is left is open to every holder, so that no holder can take it from the others.
//!
//! A holder may take more while what it has is less than what is free. So one holder alone gets half of the resource, two
//! a third each, and what is free for the next one never comes to nothing, however greedy the others are (dynamic
//! thresholds of shared buffers: A. K. Choudhury and E. L. Hahne, IEEE/ACM Transactions on Networking 6 (2), 1998).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Who takes a share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// A client that has not authenticated, by its address.
    Address(IpAddr),
    /// A client of the configuration, by its name.
    Client(String),
}

/// A resource of so many units, and who holds how many. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Shares(Arc<SharedUnits>);

#[derive(Debug)]
struct SharedUnits {
    /// Units in all.
    capacity: u64,
    /// Units that any holder may take while there are as many.
    least: u64,
    /// Units that no holder may have more of.
    most: u64,
    held: Mutex<HeldUnits>,
}

#[derive(Debug, Default)]
struct HeldUnits {
    all: u64,
    by_holder: HashMap<Holder, u64>,
}

/// Units that a holder has until this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    of: Arc<SharedUnits>,
    holder: Holder,
    units: u64,
}

impl Shares {
    /// A resource of `capacity` units, of which a holder may have `least` whatever it has already, while they are there.
    pub(crate) fn new(capacity: u64, least: u64) -> Shares {
        Shares(Arc::new(SharedUnits { capacity, least, most: u64::MAX, held: Mutex::default() }))
    }

    /// A resource of `capacity` units, of which no holder may have more than `most`.
    pub(crate) fn bounded(capacity: u64, most: u64) -> Shares {
        Shares(Arc::new(SharedUnits { capacity, least: most, most, held: Mutex::default() }))
    }

    /// Takes units for a holder; `None` if its share is used up, or they are not there.
    pub(crate) fn take(&self, holder: &Holder, units: u64) -> Option<Share> {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.by_holder.get(holder).copied().unwrap_or(0);
        let free = self.0.capacity.saturating_sub(held.all);
        // What it would have may not be more than what would be left.
        let allowed = own + units <= self.0.least || own + units <= free.saturating_sub(units);
        if units > free || own + units > self.0.most || !allowed {
            return None;
        }
        held.all += units;
        *held.by_holder.entry(holder.clone()).or_default() += units;
        Some(Share { of: self.0.clone(), holder: holder.clone(), units })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= self.units;
        // Holders that have nothing take no memory.
        if let Some(own) = held.by_holder.get_mut(&self.holder) {
            *own -= self.units;
            if *own == 0 {
                held.by_holder.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(number: usize) -> Holder {
        Holder::Client(number.to_string())
    }

    /// Greedy holders leave as much as each of them has; what they let go is free again.
    #[test]
    fn greedy_holders_leave_a_share() {
        for greedy in 1..8 {
            let shares = Shares::new(1000, 4);
            let mut taken: Vec<Share> = Vec::new();
            for round in 0..1000 {
                taken.extend(shares.take(&holder(round % greedy), 1));
            }
            let expected = 1000 / (greedy as u64 + 1);
            let left = 1000 - taken.len() as u64;
            assert!(left.abs_diff(expected) <= greedy as u64, "{greedy} leave {left}, not {expected}");
            assert!(shares.take(&holder(greedy), left / 2).is_some(), "half of what is left is the newcomer's");
            assert!(shares.take(&holder(0), 1).is_none());
            taken.clear();
            assert_eq!(shares.0.held.lock().unwrap().by_holder.len(), 0);
            assert!(shares.take(&holder(0), 500).is_some() && shares.take(&holder(0), 501).is_none());
        }
    }

    /// The least share is had while there is room, and never more than there is.
    #[test]
    fn the_least_share() {
        let shares = Shares::new(10, 4);
        let first: Vec<Share> = (0..2).filter_map(|number| shares.take(&holder(number), 4)).collect();
        assert_eq!(first.len(), 2);
        assert!(shares.take(&holder(2), 3).is_none());
        assert!(shares.take(&holder(2), 2).is_some());
        assert!(Shares::new(0, 4).take(&holder(0), 1).is_none());
        let bounded = Shares::bounded(10, 4);
        let taken: Vec<Share> = (0..100).filter_map(|number| bounded.take(&holder(number % 3), 1)).collect();
        assert_eq!(taken.len(), 10);
        let bounded = Shares::bounded(10, 4);
        let taken: Vec<Share> = (0..100).filter_map(|_| bounded.take(&holder(0), 1)).collect();
        assert_eq!(taken.len(), 4);
        assert!(Shares::new(u64::MAX, 4).take(&holder(0), u64::MAX / 2).is_some());
    }
}
