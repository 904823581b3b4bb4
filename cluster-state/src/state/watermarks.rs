//! The watermarks and the gc watermarks of the actors.

use super::{Changes, State, Watermark};
use crate::id::{Actor, Dot};
use crate::vector::VersionVector;

impl State {
    /// Returns the watermark of an actor, or 0.
    pub(crate) fn watermark(&self, actor: Actor) -> u64 {
        self.watermarks
            .get(&actor)
            .map_or(0, |watermark| watermark.version)
    }

    pub(crate) fn watermarks(&self) -> impl Iterator<Item = (Actor, u64)> {
        self.watermarks
            .iter()
            .map(|(actor, watermark)| (*actor, watermark.version))
    }

    pub(crate) fn vector(&self) -> VersionVector {
        self.watermarks().collect()
    }

    pub(crate) fn own_version(&self) -> u64 {
        self.watermark(self.me)
    }

    /// Continues as a new incarnation. Of the old one, what came after `sound` no longer counts as
    /// known.
    pub(crate) fn become_actor(&mut self, me: Actor, sound: u64, changes: &mut Changes) {
        let old = std::mem::replace(&mut self.me, me);
        // Versions above `sound` may have been used twice. They count as above a gap until the
        // peers send the content that was first.
        if sound < self.watermark(old) {
            let watermark = self.watermarks.remove(&old);
            if let Some(watermark) = watermark {
                self.watermark_lane.remove(&watermark.seq);
            }
            let above: Vec<Dot> = self.ops_after(old, sound).map(|op| op.dot).collect();
            for dot in above {
                self.above_gaps.insert(dot, ());
            }
            changes.complete.insert(old, sound);
            if sound > 0 {
                self.raise(old, sound, changes);
                self.raise_gc_watermark(
                    old,
                    watermark.map_or(0, |watermark| watermark.gc_watermark),
                    changes,
                );
            }
        }
    }

    /// Returns the gc watermarks. A machine whose watermark is below one of them could keep a
    /// deleted record forever.
    pub(crate) fn gc_watermarks(&self) -> impl Iterator<Item = (Actor, u64)> {
        self.watermarks
            .iter()
            .filter(|(_, watermark)| watermark.gc_watermark > 0)
            .map(|(actor, watermark)| (*actor, watermark.gc_watermark))
    }

    pub(crate) fn gc_watermark(&self, actor: Actor) -> u64 {
        self.watermarks
            .get(&actor)
            .map_or(0, |watermark| watermark.gc_watermark)
    }

    /// Changes whenever a gc watermark grows.
    pub(crate) fn gc_number(&self) -> u64 {
        self.gc_number
    }

    /// Raises a gc watermark, but never above the watermark, because only what is known can be
    /// forgotten.
    pub(crate) fn raise_gc_watermark(&mut self, actor: Actor, version: u64, changes: &mut Changes) {
        let Some(known) = self.watermarks.get(&actor).copied() else {
            return;
        };
        let gc_watermark = version.min(known.version);
        if gc_watermark > known.gc_watermark {
            self.watermarks.insert(
                actor,
                Watermark {
                    gc_watermark,
                    ..known
                },
            );
            self.gc_number += 1;
            changes.gc_watermarks.insert(actor, gc_watermark);
        }
    }

    /// Reports whether nothing was ever received here.
    pub(crate) fn is_new(&self) -> bool {
        let mine = |actor: &Actor| actor.machine == self.me.machine;
        self.watermarks.iter().all(|(actor, _)| mine(actor))
            && self.ops.iter().all(|(dot, _)| mine(&dot.actor))
    }

    /// Records that everything of an actor up to `version` is here.
    pub(crate) fn raise(&mut self, actor: Actor, version: u64, changes: &mut Changes) {
        let known = self.watermarks.get(&actor).copied();
        if known.is_some_and(|known| known.version >= version) || version == 0 {
            return;
        }
        if let Some(known) = known {
            self.watermark_lane.remove(&known.seq);
        }
        self.seq += 1;
        self.watermark_lane.insert(self.seq, actor);
        let gc_watermark = known.map_or(0, |known| known.gc_watermark);
        self.watermarks.insert(
            actor,
            Watermark {
                version,
                gc_watermark,
                seq: self.seq,
            },
        );
        changes.complete.insert(actor, version);
        let from = known.map_or(0, |known| known.version);
        let start = actor.dot(from);
        // The new watermark covers these changes, so they are no longer above a gap.
        let settled: Vec<Dot> = self
            .above_gaps
            .iter_from(move |dot| *dot <= start)
            .map(|(dot, ())| *dot)
            .take_while(|dot| dot.actor == actor && dot.version <= version)
            .collect();
        for dot in settled {
            self.above_gaps.remove(&dot);
        }
    }
}
