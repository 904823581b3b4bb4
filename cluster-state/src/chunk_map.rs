//! A sorted map whose copies share what they have in common.
//!
//! Each commit publishes a new immutable state while readers keep older ones. Copying this map copies one pointer;
//! changing a copy copies the spine (one pointer per 64 entries or so) and one chunk, not the map.

use std::cmp::Ordering;
use std::sync::Arc;

/// A chunk splits in two when it grows beyond this.
const CHUNK: usize = 64;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// The map. No chunk is empty; keys ascend within and across chunks.
#[derive(Debug)]
pub(crate) struct ChunkMap<K, V> {
    chunks: Arc<Vec<Chunk<K, V>>>,
}

impl<K, V> Clone for ChunkMap<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: Arc::clone(&self.chunks) }
    }
}

impl<K, V> Default for ChunkMap<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::new(Vec::new()) }
    }
}

impl<K: Ord + Clone, V: Clone> ChunkMap<K, V> {
    /// The value whose key the probe calls equal; the probe compares a key of the map with the wanted one.
    pub(crate) fn get_by(&self, probe: impl Fn(&K) -> Ordering) -> Option<&V> {
        let chunk = self.chunks.get(self.chunk_for(&probe))?;
        let at = chunk.binary_search_by(|(key, _)| probe(key)).ok()?;
        chunk.get(at).map(|(_, value)| value)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.get_by(|other| other.cmp(key))
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let index = self.chunk_for(|other| other.cmp(&key));
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(shared) = chunks.get_mut(index) else {
            chunks.push(Arc::new(vec![(key, value)]));
            return None;
        };
        let chunk = Arc::make_mut(shared);
        match chunk.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => chunk.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                chunk.insert(at, (key, value));
                if chunk.len() > CHUNK {
                    let rest = chunk.split_off(CHUNK / 2);
                    chunks.insert(index + 1, Arc::new(rest));
                }
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let index = self.chunk_for(|other| other.cmp(key));
        let at = self.chunks.get(index)?.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(chunks.get_mut(index)?);
        let (_, value) = chunk.remove(at);
        let left = chunk.len();
        if left == 0 {
            chunks.remove(index);
        } else if chunks.get(index + 1).is_some_and(|next| next.len() + left <= CHUNK / 2) {
            // Without this, deletes at random would leave a spine of tiny chunks.
            let next = chunks.remove(index + 1);
            if let Some(chunk) = chunks.get_mut(index) {
                Arc::make_mut(chunk).extend(next.iter().cloned());
            }
        }
        Some(value)
    }

    /// Number of entries; counts chunk by chunk.
    pub(crate) fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.iter_from(|_| false)
    }

    /// From the first key that `before` denies; `before` holds for a prefix of the keys.
    pub(crate) fn iter_from(&self, before: impl Fn(&K) -> bool) -> impl Iterator<Item = (&K, &V)> {
        let index = self.chunks.partition_point(|chunk| chunk.last().is_some_and(|(key, _)| before(key)));
        let skip = self.chunks.get(index).map_or(0, |chunk| chunk.partition_point(|(key, _)| before(key)));
        self.chunks
            .iter()
            .skip(index)
            .flat_map(|chunk| chunk.iter())
            .skip(skip)
            .map(|(key, value)| (key, value))
    }

    /// The chunk that holds the wanted key, or would.
    fn chunk_for(&self, probe: impl Fn(&K) -> Ordering) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.first().is_some_and(|(key, _)| probe(key) != Ordering::Greater))
            .saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn behaves_like_a_btree_map_and_old_copies_do_not_change(
            steps in prop::collection::vec((any::<bool>(), 0u16..300, any::<u8>()), 0..900),
            from in 0u16..300,
        ) {
            let mut map = ChunkMap::default();
            let mut model = BTreeMap::new();
            let mut copies = Vec::new();
            for (n, (insert, key, value)) in steps.into_iter().enumerate() {
                if n % 100 == 0 {
                    copies.push((map.clone(), model.clone()));
                }
                if insert {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
            }
            copies.push((map, model));
            for (map, model) in copies {
                prop_assert!(map.iter().eq(model.iter()));
                prop_assert!(map.iter_from(|key| *key < from).eq(model.range(from..)));
                prop_assert!(map.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK));
            }
        }
    }
}
