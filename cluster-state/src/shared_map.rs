//! A sorted map whose copies share their common parts.
//!
//! Each commit publishes a new immutable state while readers keep older ones. The map is a B-tree
//! of shared nodes. Copying it copies one pointer, and changing a copy copies the nodes on the path
//! to the changed entry. Most of that work is counting references to a node's entries, so nodes are
//! small.

use std::cmp::Ordering;
use std::slice;
use std::sync::Arc;

use arrayvec::ArrayVec;

/// Maximum entries of a leaf.
const LEAF: usize = 16;

/// Maximum children of an inner node.
const INNER: usize = 16;

/// Maximum number of levels. Both halves of a split node accept more entries before they split, so
/// each level needs at least twice the insertions of the level below. In practice it is twelve
/// times as many, and the map has four levels.
const LEVELS: usize = 24;

type Leaf<K, V> = ArrayVec<(K, V), LEAF>;

/// Children with their lower bounds: above all keys before the child, and not above its own keys.
/// The bound of the first child has no meaning.
type Inner<K, V> = ArrayVec<(K, Node<K, V>), INNER>;

#[derive(Debug)]
pub(crate) struct SharedMap<K, V> {
    root: Node<K, V>,
    len: usize,
}

/// A part of the map. Only the root can be empty, and all leaves have the same depth.
#[derive(Debug)]
enum Node<K, V> {
    Leaf(Arc<Leaf<K, V>>),
    Inner(Arc<Inner<K, V>>),
}

/// What an insertion did to a node.
enum Inserted<K, V> {
    Replaced(V),
    Added,
    /// The node was full: its new right neighbour, and the first key there.
    Split(K, Node<K, V>),
}

/// The entries of some leaves.
struct Entries<'a, K, V> {
    leaf: slice::Iter<'a, (K, V)>,
    /// For each level, the siblings after the node on the path to the leaf.
    after: ArrayVec<slice::Iter<'a, (K, Node<K, V>)>, LEVELS>,
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            root: self.root.clone(),
            len: self.len,
        }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self {
            root: Node::default(),
            len: 0,
        }
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Returns the value whose key the probe calls equal. The probe compares a key of the map with
    /// the wanted one.
    pub(crate) fn get_by(&self, probe: impl Fn(&K) -> Ordering) -> Option<&V> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Inner(children) => {
                    let at = child_for(children, |low| probe(low) != Ordering::Greater);
                    node = children.get(at).map(|(_, child)| child)?;
                }
                Node::Leaf(entries) => {
                    let at = search(entries, |(key, _)| probe(key)).ok()?;
                    return entries.get(at).map(|(_, value)| value);
                }
            }
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.get_by(|other| other.cmp(key))
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.root.insert(key, value) {
            Inserted::Replaced(old) => return Some(old),
            Inserted::Added => {}
            Inserted::Split(low, right) => {
                let left = std::mem::take(&mut self.root);
                self.root = Node::Inner(Arc::new(
                    [(low.clone(), left), (low, right)].into_iter().collect(),
                ));
            }
        }
        self.len += 1;
        None
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.root.remove(&self.path_to(key)?)?;
        self.len -= 1;
        while let Node::Inner(children) = &self.root
            && let [(_, only)] = children.as_slice()
        {
            self.root = only.clone();
        }
        Some(value)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.iter_from(|_| false)
    }

    /// Iterates from the first key for which `before` is false. `before` must hold for a prefix of
    /// the keys.
    pub(crate) fn iter_from(&self, before: impl Fn(&K) -> bool) -> impl Iterator<Item = (&K, &V)> {
        let mut entries = Entries {
            leaf: [].iter(),
            after: ArrayVec::new(),
        };
        entries.enter(&self.root, before);
        entries
    }

    /// Returns the positions of the children that lead to a key's leaf, and the key's position
    /// there. Looking for a missing key copies nothing.
    fn path_to(&self, key: &K) -> Option<ArrayVec<usize, LEVELS>> {
        let mut path = ArrayVec::new();
        let mut node = &self.root;
        loop {
            match node {
                Node::Inner(children) => {
                    let at = child_for(children, |low| low <= key);
                    path.push(at);
                    node = children.get(at).map(|(_, child)| child)?;
                }
                Node::Leaf(entries) => {
                    path.push(search(entries, |(other, _)| other.cmp(key)).ok()?);
                    return Some(path);
                }
            }
        }
    }
}

impl<K, V> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(entries) => Self::Leaf(Arc::clone(entries)),
            Self::Inner(children) => Self::Inner(Arc::clone(children)),
        }
    }
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Self::Leaf(Arc::default())
    }
}

impl<K: Ord + Clone, V: Clone> Node<K, V> {
    fn insert(&mut self, key: K, value: V) -> Inserted<K, V> {
        match self {
            Self::Leaf(shared) => {
                let entries = Arc::make_mut(shared);
                let at = search(entries, |(other, _)| other.cmp(&key));
                if let Ok(at) = at
                    && let Some((_, old)) = entries.get_mut(at)
                {
                    return Inserted::Replaced(std::mem::replace(old, value));
                }
                let (Ok(at) | Err(at)) = at;
                Inserted::new(put(entries, at, (key, value)), Self::Leaf)
            }
            Self::Inner(shared) => {
                let children = Arc::make_mut(shared);
                let at = child_for(children, |low| *low <= key);
                match children
                    .get_mut(at)
                    .map(|(_, child)| child.insert(key, value))
                {
                    Some(Inserted::Split(low, right)) => {
                        Inserted::new(put(children, at + 1, (low, right)), Self::Inner)
                    }
                    Some(done) => done,
                    None => Inserted::Added,
                }
            }
        }
    }

    fn remove(&mut self, path: &[usize]) -> Option<V> {
        let (&at, path) = path.split_first()?;
        match self {
            Self::Leaf(shared) => Arc::make_mut(shared).pop_at(at).map(|(_, value)| value),
            Self::Inner(shared) => {
                let children = Arc::make_mut(shared);
                let (_, child) = children.get_mut(at)?;
                let value = child.remove(path)?;
                if child.is_empty() {
                    children.remove(at);
                } else if let Some([(_, child), (low, next)]) = children.get_mut(at..at + 2)
                    && child.take_in(low, next)
                {
                    children.remove(at + 1);
                }
                Some(value)
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Leaf(entries) => entries.is_empty(),
            Self::Inner(children) => children.is_empty(),
        }
    }

    /// Absorbs the right neighbour if both together are small. Otherwise random removals would
    /// leave a tree of tiny nodes. The neighbour's first child gets a meaningful lower bound again.
    fn take_in(&mut self, low: &K, next: &Self) -> bool {
        match (self, next) {
            (Self::Leaf(entries), Self::Leaf(next)) if entries.len() + next.len() <= LEAF / 2 => {
                Arc::make_mut(entries).extend(next.iter().cloned());
                true
            }
            (Self::Inner(children), Self::Inner(next))
                if children.len() + next.len() <= INNER / 2 =>
            {
                let lows = std::iter::once(low).chain(next.iter().skip(1).map(|(low, _)| low));
                let next = lows
                    .zip(next.iter())
                    .map(|(low, (_, child))| (low.clone(), child.clone()));
                Arc::make_mut(children).extend(next);
                true
            }
            _ => false,
        }
    }
}

impl<K: Clone, V> Inserted<K, V> {
    /// Makes the result of an insertion into a node from what was split off.
    fn new<T, const N: usize>(
        right: Option<ArrayVec<(K, T), N>>,
        node: impl FnOnce(Arc<ArrayVec<(K, T), N>>) -> Node<K, V>,
    ) -> Self {
        match right
            .as_ref()
            .and_then(|right| right.first())
            .map(|(low, _)| low.clone())
            .zip(right)
        {
            Some((low, right)) => Self::Split(low, node(Arc::new(right))),
            None => Self::Added,
        }
    }
}

impl<'a, K, V> Entries<'a, K, V> {
    /// Descends to the first key for which `before` is false. It may be true for all keys of the
    /// leaf.
    fn enter(&mut self, mut node: &'a Node<K, V>, before: impl Fn(&K) -> bool) {
        loop {
            match node {
                Node::Inner(children) => {
                    let mut children = children.iter();
                    let at = child_for(children.as_slice(), &before);
                    let Some((_, child)) = children.nth(at) else {
                        return;
                    };
                    self.after.push(children);
                    node = child;
                }
                Node::Leaf(entries) => {
                    let at = prefix(entries, |(key, _)| before(key));
                    self.leaf = entries.get(at..).unwrap_or_default().iter();
                    return;
                }
            }
        }
    }
}

impl<'a, K, V> Iterator for Entries<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.leaf.next() {
                return Some((key, value));
            }
            match self.after.last_mut()?.next() {
                Some((_, node)) => self.enter(node, |_| false),
                None => drop(self.after.pop()),
            }
        }
    }
}

/// Inserts an item into a node. A full node splits where the new item belongs, and the right part
/// is returned. With ascending keys this leaves nodes that are nearly full.
fn put<T, const N: usize>(
    items: &mut ArrayVec<T, N>,
    at: usize,
    item: T,
) -> Option<ArrayVec<T, N>> {
    if !items.is_full() {
        items.insert(at, item);
        return None;
    }
    let cut = at.clamp(N / 8, N - N / 8);
    let mut right: ArrayVec<T, N> = items.drain(cut..).collect();
    if at <= cut {
        items.insert(at, item);
    } else {
        right.insert(at - cut, item);
    }
    Some(right)
}

/// Returns the child that contains, or would contain, the last key for which `below` is true.
fn child_for<K, V>(children: &[(K, Node<K, V>)], below: impl Fn(&K) -> bool) -> usize {
    prefix(children.get(1..).unwrap_or_default(), |(low, _)| below(low))
}

/// Returns the number of items at the beginning for which `below` is true.
fn prefix<T>(items: &[T], below: impl Fn(&T) -> bool) -> usize {
    let (Ok(at) | Err(at)) = search(items, |item| {
        if below(item) {
            Ordering::Less
        } else {
            Ordering::Greater
        }
    });
    at
}

/// Finds an item or its position. The standard library's search is branch-free, so it waits for
/// each key before it fetches the next. With string keys that takes half as long again.
fn search<T>(items: &[T], probe: impl Fn(&T) -> Ordering) -> Result<usize, usize> {
    let (mut from, mut to) = (0, items.len());
    while from < to {
        let middle = usize::midpoint(from, to);
        match items.get(middle).map_or(Ordering::Greater, &probe) {
            Ordering::Less => from = middle + 1,
            Ordering::Equal => return Ok(middle),
            Ordering::Greater => to = middle,
        }
    }
    Err(from)
}

#[cfg(test)]
mod tests;
