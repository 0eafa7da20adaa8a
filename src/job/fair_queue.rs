//! Whose turn it is: clients one after the other, each client's jobs in the order they came.

use std::collections::VecDeque;
use std::sync::Arc;

/// Something that a client waits for.
pub(crate) trait Queued {
    /// Whose it is.
    fn client(&self) -> &str;
}

/// Jobs by client. A client whose job was given a turn goes to the end of the line.
pub(crate) struct FairQueue<T> {
    clients: VecDeque<(String, Vec<Arc<T>>)>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> FairQueue<T> {
        FairQueue { clients: VecDeque::new() }
    }
}

impl<T: Queued> FairQueue<T> {
    /// Adds a job behind its client's others.
    pub(crate) fn push(&mut self, job: Arc<T>) {
        match self.clients.iter_mut().find(|(client, _)| client == job.client()) {
            Some((_, jobs)) => jobs.push(job),
            None => self.clients.push_back((job.client().to_string(), vec![job])),
        }
    }

    /// Takes a job out.
    pub(crate) fn remove(&mut self, job: &Arc<T>) {
        for (_, jobs) in &mut self.clients {
            jobs.retain(|known| !Arc::ptr_eq(known, job));
        }
        self.clients.retain(|(_, jobs)| !jobs.is_empty());
    }

    /// The next turn: of the first client in line that has one to take, the first job that `take` gives something for.
    pub(crate) fn next<R>(&mut self, mut take: impl FnMut(&Arc<T>) -> Option<R>) -> Option<R> {
        for i in 0..self.clients.len() {
            if let Some(taken) = self.clients[i].1.iter().find_map(&mut take) {
                let client = self.clients.remove(i).expect("it was just there");
                self.clients.push_back(client);
                return Some(taken);
            }
        }
        None
    }

    /// All jobs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.clients.iter().flat_map(|(_, jobs)| jobs)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    struct Job(&'static str, AtomicUsize);

    impl Queued for Job {
        fn client(&self) -> &str {
            self.0
        }
    }

    /// A client with a thousand shards to write does not hold up one with three.
    #[test]
    fn clients_take_turns() {
        let mut turns = FairQueue::default();
        let big = Arc::new(Job("big", AtomicUsize::new(1000)));
        let small = Arc::new(Job("small", AtomicUsize::new(3)));
        for job in [&big, &big, &small] {
            turns.push(job.clone());
        }
        let mut order = Vec::new();
        while small.1.load(Relaxed) > 0 {
            let take = |job: &Arc<Job>| {
                let left = job.1.load(Relaxed);
                (left > 0).then(|| job.1.store(left - 1, Relaxed)).map(|()| job.0)
            };
            order.push(turns.next(take).unwrap());
        }
        assert_eq!(order, ["big", "small", "big", "small", "big", "small"]);
        turns.remove(&big);
        turns.remove(&small);
        assert!(turns.iter().next().is_none() && turns.clients.is_empty());
    }
}
