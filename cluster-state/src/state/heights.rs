//! The watermarks of the actors (`height`) and their gc watermarks (`cut`).

use super::{Changes, Height, State};
use crate::id::{Actor, Dot};
use crate::vector::VersionVector;

impl State {
    /// Returns the watermark of an actor, or 0.
    pub(crate) fn height(&self, actor: Actor) -> u64 {
        self.heights.get(&actor).map_or(0, |height| height.version)
    }

    pub(crate) fn heights(&self) -> impl Iterator<Item = (Actor, u64)> {
        self.heights
            .iter()
            .map(|(actor, height)| (*actor, height.version))
    }

    pub(crate) fn vector(&self) -> VersionVector {
        self.heights().collect()
    }

    pub(crate) fn own_version(&self) -> u64 {
        self.height(self.me)
    }

    /// Continues as a new incarnation. Of the old one, what came after `sound` no longer counts as
    /// known.
    pub(crate) fn become_actor(&mut self, me: Actor, sound: u64, changes: &mut Changes) {
        let old = std::mem::replace(&mut self.me, me);
        // Versions above `sound` may have been used twice. They count as above a gap until the
        // peers send the content that was first.
        if sound < self.height(old) {
            let height = self.heights.remove(&old);
            if let Some(height) = height {
                self.height_lane.remove(&height.seq);
            }
            let above: Vec<Dot> = self.ops_after(old, sound).map(|op| op.dot).collect();
            for dot in above {
                self.loose.insert(dot, ());
            }
            changes.complete.insert(old, sound);
            if sound > 0 {
                self.raise(old, sound, changes);
                self.raise_cut(old, height.map_or(0, |height| height.cut), changes);
            }
        }
    }

    /// Returns the gc watermarks. A machine whose watermark is below one of them could keep a
    /// deleted record forever.
    pub(crate) fn cuts(&self) -> impl Iterator<Item = (Actor, u64)> {
        self.heights
            .iter()
            .filter(|(_, height)| height.cut > 0)
            .map(|(actor, height)| (*actor, height.cut))
    }

    pub(crate) fn cut(&self, actor: Actor) -> u64 {
        self.heights.get(&actor).map_or(0, |height| height.cut)
    }

    /// Changes whenever a gc watermark grows.
    pub(crate) fn cuts_number(&self) -> u64 {
        self.cuts_number
    }

    /// Raises a gc watermark, but never above the watermark, because only what is known can be
    /// forgotten.
    pub(crate) fn raise_cut(&mut self, actor: Actor, version: u64, changes: &mut Changes) {
        let Some(known) = self.heights.get(&actor).copied() else {
            return;
        };
        let cut = version.min(known.version);
        if cut > known.cut {
            self.heights.insert(actor, Height { cut, ..known });
            self.cuts_number += 1;
            changes.cuts.insert(actor, cut);
        }
    }

    /// Reports whether nothing was ever received here.
    pub(crate) fn is_new(&self) -> bool {
        let mine = |actor: &Actor| actor.machine == self.me.machine;
        self.heights.iter().all(|(actor, _)| mine(actor))
            && self.ops.iter().all(|(dot, _)| mine(&dot.actor))
    }

    /// Records that everything of an actor up to `version` is here.
    pub(crate) fn raise(&mut self, actor: Actor, version: u64, changes: &mut Changes) {
        let known = self.heights.get(&actor).copied();
        if known.is_some_and(|known| known.version >= version) || version == 0 {
            return;
        }
        if let Some(known) = known {
            self.height_lane.remove(&known.seq);
        }
        self.seq += 1;
        self.height_lane.insert(self.seq, actor);
        let cut = known.map_or(0, |known| known.cut);
        self.heights.insert(
            actor,
            Height {
                version,
                cut,
                seq: self.seq,
            },
        );
        changes.complete.insert(actor, version);
        let from = known.map_or(0, |known| known.version);
        let start = Dot {
            actor,
            version: from,
        };
        // The new watermark covers these changes, so they are no longer above a gap.
        let settled: Vec<Dot> = self
            .loose
            .iter_from(move |dot| *dot <= start)
            .map(|(dot, ())| *dot)
            .take_while(|dot| dot.actor == actor && dot.version <= version)
            .collect();
        for dot in settled {
            self.loose.remove(&dot);
        }
    }
}
