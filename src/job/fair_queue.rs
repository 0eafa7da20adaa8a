//! Round-robin scheduling: one work item per client in turn; a client's jobs run in order of arrival. The queue knows
//! nothing of work items: its caller says which job has one.

use std::collections::VecDeque;
use std::sync::Arc;

/// An entry of a [`FairQueue`].
pub(crate) trait Queued {
    /// The client that the entry counts for.
    fn client(&self) -> &str;
}

/// Jobs by client. A client that got a work item moves behind the others.
pub(crate) struct FairQueue<T> {
    /// Clients in the order of their turns, none without a job; the jobs of each in order of arrival.
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

    /// Removes a job, and its client if that was the last one; nothing happens if the job is not queued.
    pub(crate) fn remove(&mut self, job: &Arc<T>) {
        for (_, jobs) in &mut self.clients {
            jobs.retain(|queued| !Arc::ptr_eq(queued, job));
        }
        self.clients.retain(|(_, jobs)| !jobs.is_empty());
    }

    /// The next work item: `take` is called on the jobs of one client after the other until it yields one. `None` if it
    /// yields none for any job.
    pub(crate) fn next<R>(&mut self, mut take: impl FnMut(&Arc<T>) -> Option<R>) -> Option<R> {
        for i in 0..self.clients.len() {
            if let Some(item) = self.clients[i].1.iter().find_map(&mut take) {
                let client = self.clients.remove(i).expect("it was just there");
                self.clients.push_back(client);
                return Some(item);
            }
        }
        None
    }

    /// All jobs in the queue, client by client.
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
        let mut queue = FairQueue::default();
        let big = Arc::new(Job("big", AtomicUsize::new(1000)));
        let small = Arc::new(Job("small", AtomicUsize::new(3)));
        for job in [&big, &big, &small] {
            queue.push(job.clone());
        }
        let mut order = Vec::new();
        while small.1.load(Relaxed) > 0 {
            let take = |job: &Arc<Job>| {
                let left = job.1.load(Relaxed);
                (left > 0).then(|| job.1.store(left - 1, Relaxed)).map(|()| job.0)
            };
            order.push(queue.next(take).unwrap());
        }
        assert_eq!(order, ["big", "small", "big", "small", "big", "small"]);
        queue.remove(&big);
        queue.remove(&small);
        assert!(queue.iter().next().is_none() && queue.clients.is_empty());
    }
}
