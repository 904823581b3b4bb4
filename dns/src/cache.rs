//! A cache of forwarded answers, each kept for as long as its TTL allows. Time is a parameter.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::message::{age, lowest_ttl};

/// Maximum number of entries. The oldest is dropped first.
const MAX_ENTRIES: usize = 2_048;
/// Maximum bytes of a cached answer, so that the cache takes at most 8 MiB. A longer answer is not
/// cached.
const MAX_BYTES: usize = 4_096;
/// Maximum time in the cache, whatever the answer's TTL.
const MAX_TTL: Duration = Duration::from_mins(1);

/// A bounded cache of responses by question.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: HashMap<Vec<u8>, Entry>,
    /// Questions in order of arrival, each with the number of its entry. A question that arrived
    /// twice appears twice.
    order: VecDeque<(u64, Vec<u8>)>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    response: Vec<u8>,
    stored: Instant,
    until: Instant,
}

impl Cache {
    /// Returns the response, with its TTLs reduced by its age.
    pub(crate) fn get(&self, key: &[u8], now: Instant) -> Option<Vec<u8>> {
        let entry = self.entries.get(key).filter(|entry| now < entry.until)?;
        let mut response = entry.response.clone();
        let seconds = now.saturating_duration_since(entry.stored).as_secs();
        age(&mut response, u32::try_from(seconds).unwrap_or(u32::MAX));
        Some(response)
    }

    /// Caches a response, if its TTLs allow it.
    pub(crate) fn put(&mut self, key: Vec<u8>, response: &[u8], now: Instant) {
        let Some(ttl) = lowest_ttl(response).filter(|ttl| *ttl > 0 && response.len() <= MAX_BYTES)
        else {
            return;
        };
        let until = now + Duration::from_secs(ttl.into()).min(MAX_TTL);
        while self.order.len() >= MAX_ENTRIES {
            let Some((number, oldest)) = self.order.pop_front() else {
                break;
            };
            if self
                .entries
                .get(&oldest)
                .is_some_and(|entry| entry.number == number)
            {
                self.entries.remove(&oldest);
            }
        }
        let number = self.next;
        self.next += 1;
        self.order.push_back((number, key.clone()));
        self.entries.insert(
            key,
            Entry {
                number,
                response: response.to_vec(),
                stored: now,
                until,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a response with one A record of `example` for 192.0.2.1.
    fn response(ttl: u32) -> Vec<u8> {
        let mut bytes = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        bytes.extend(b"\x07example\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01");
        bytes.extend(ttl.to_be_bytes());
        bytes.extend([0, 4, 192, 0, 2, 1]);
        bytes
    }

    #[test]
    fn cache_keeps_answer_for_its_ttl() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        cache.put(vec![1], &response(10), start);
        assert_eq!(cache.get(&[1], start), Some(response(10)));
        assert_eq!(cache.get(&[1], at(4)), Some(response(6)));
        assert_eq!(cache.get(&[1], at(10)), None);
        assert_eq!(cache.get(&[2], start), None);
        cache.put(vec![3], &response(86_400), start);
        assert!(cache.get(&[3], at(59)).is_some() && cache.get(&[3], at(60)).is_none());
    }

    #[test]
    fn cache_refuses_answer_without_ttl() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let mut damaged = response(10);
        damaged.truncate(40);
        for bad in [
            response(0),
            damaged,
            Vec::new(),
            response(10)[..HEADER_AND_QUESTION].to_vec(),
        ] {
            cache.put(vec![1], &bad, now);
            assert_eq!(cache.get(&[1], now), None, "{bad:?}");
        }
    }
    const HEADER_AND_QUESTION: usize = 25;

    #[test]
    fn cache_never_exceeds_its_maximum() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.put(vec![0xff], &response(10), now);
        for round in 0..3_u32 {
            for number in 0..MAX_ENTRIES as u32 {
                cache.put(number.to_be_bytes().to_vec(), &response(10 + round), now);
            }
        }
        assert_eq!(cache.entries.len(), MAX_ENTRIES);
        assert_eq!(cache.order.len(), MAX_ENTRIES);
        assert_eq!(cache.get(&[0xff], now), None);
        assert_eq!(cache.get(&5_u32.to_be_bytes(), now), Some(response(12)));
    }
}
