//! Connections of which nobody knows yet whose they are.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// A bounded number of connections; when there are too many, the oldest one of the address that has most goes. Idling keeps
/// nobody out, and an address that opens many connections keeps out itself first.
#[derive(Debug)]
pub(crate) struct Pending {
    limit: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Oldest first.
    entries: VecDeque<Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    address: IpAddr,
    evicted: CancellationToken,
}

/// A place among them, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    pending: Arc<Pending>,
    number: u64,
    evicted: CancellationToken,
}

impl Pending {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            queue: Mutex::default(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in, at the cost of another one where needed.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Ticket {
        let mut queue = self.queue();
        while queue.entries.len() >= self.limit
            && let Some(index) = most_expendable(&queue.entries)
            && let Some(entry) = queue.entries.remove(index)
        {
            entry.evicted.cancel();
        }
        let number = queue.next;
        queue.next += 1;
        let evicted = CancellationToken::new();
        queue.entries.push_back(Entry {
            number,
            address,
            evicted: evicted.clone(),
        });
        Ticket {
            pending: Arc::clone(self),
            number,
            evicted,
        }
    }
}

/// The oldest of the address that has most.
fn most_expendable(entries: &VecDeque<Entry>) -> Option<usize> {
    let mut counts = HashMap::<IpAddr, usize>::new();
    for entry in entries {
        *counts.entry(entry.address).or_default() += 1;
    }
    let most = counts.values().max()?;
    entries
        .iter()
        .position(|entry| counts.get(&entry.address) == Some(most))
}

impl Ticket {
    /// Returns when somebody else has the place.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut queue = self.pending.queue();
        queue.entries.retain(|entry| entry.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_most_gives_way() {
        let pending = Arc::new(Pending::new(4));
        let (loud, quiet) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let owner = pending.admit(quiet);
        let crowd: Vec<_> = (0..50).map(|_| pending.admit(loud)).collect();
        assert!(!owner.evicted.is_cancelled());
        let left = crowd
            .iter()
            .filter(|ticket| !ticket.evicted.is_cancelled())
            .count();
        assert_eq!(left, 3);
        assert!(crowd[..47].iter().all(|ticket| ticket.evicted.is_cancelled()));
        drop(crowd);
        assert_eq!(pending.queue().entries.len(), 1);
        drop(owner);
        assert_eq!(pending.queue().entries.len(), 0);
    }

    #[test]
    fn of_one_address_the_oldest_gives_way() {
        let pending = Arc::new(Pending::new(2));
        let here = IpAddr::from([127, 0, 0, 1]);
        let tickets: Vec<_> = (0..3).map(|_| pending.admit(here)).collect();
        let evicted: Vec<_> = tickets
            .iter()
            .map(|ticket| ticket.evicted.is_cancelled())
            .collect();
        assert_eq!(evicted, [true, false, false]);
    }
}
