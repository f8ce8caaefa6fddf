//! Which numbers stand for which targets, series and sets, the same on both ends.
//!
//! The encoder decides what is described and what is forgotten; both ends then do the same here. A set holds its
//! series, a series holds its target: what nothing holds is forgotten at once, and its number is the next to be used.

use super::contexts::{Contexts, Number, code_number};
use super::mix::Prob;
use super::model::{Model, SeriesState};
use super::range::Coder;
use super::values::Values;

/// A set's order of series.
#[derive(Debug, Clone)]
pub(super) struct SetState {
    pub(super) target: u32,
    pub(super) members: Box<[u32]>,
    pub(super) clock: Clock,
    /// The set of the block that came after this one's the last time.
    next: u32,
}

/// What the next instant is predicted from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    pub(super) at_ms: i64,
    interval_ms: i64,
}

/// What a target is held by.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TargetState {
    holders: u32,
    clock: Clock,
}

/// One block's heading.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heading {
    pub(super) set: u32,
    pub(super) at_ms: i64,
    pub(super) stamped: bool,
}

/// What dropping a set set free.
#[derive(Debug, Clone, Default)]
pub(super) struct Freed {
    pub(super) series: Vec<u32>,
    pub(super) target: Option<u32>,
}

/// All numbers of one stream and what belongs to them.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    pub(super) values: Values,
    holders: Vec<u32>,
    owner: Vec<u32>,
    free_series: Vec<u32>,
    sets: Vec<Option<SetState>>,
    free_sets: Vec<u32>,
    targets: Vec<TargetState>,
    free_targets: Vec<u32>,
    last_set: u32,
    last_blocks: u32,
    same_blocks: Prob,
    same_set: Prob,
    same_stamping: Prob,
    was_stamped: bool,
}

/// Marks an unused slot of `owner` or `holders`.
const NOBODY: u32 = u32::MAX;

impl Tables {
    pub(super) fn new() -> Self {
        Self {
            values: Values {
                series: Vec::new(),
                models: Vec::new(),
                free_models: Vec::new(),
                ctx: Contexts::new(),
                digest: 0,
            },
            holders: Vec::new(),
            owner: Vec::new(),
            free_series: Vec::new(),
            sets: Vec::new(),
            free_sets: Vec::new(),
            targets: Vec::new(),
            free_targets: Vec::new(),
            last_set: 0,
            last_blocks: 1,
            same_blocks: Prob::at(60000),
            same_set: Prob::at(60000),
            same_stamping: Prob::at(60000),
            was_stamped: false,
        }
    }

    /// Heap bytes.
    pub(super) fn resident_bytes(&self) -> usize {
        let values = &self.values;
        values.series.capacity() * size_of::<SeriesState>()
            + values.models.capacity() * size_of::<Model>()
            + values.ctx.resident_bytes()
            + 4 * (self.holders.capacity() + self.owner.capacity() + self.free_series.capacity())
            + self.sets.capacity() * size_of::<Option<SetState>>()
            + self.sets.iter().flatten().map(|s| 4 * s.members.len()).sum::<usize>()
            + self.targets.capacity() * size_of::<TargetState>()
            + 4 * (values.free_models.capacity() + self.free_sets.capacity() + self.free_targets.capacity())
    }

    pub(super) fn live_series(&self) -> usize {
        self.owner.len() - self.free_series.len()
    }

    pub(super) fn live_sets(&self) -> usize {
        self.sets.len() - self.free_sets.len()
    }

    pub(super) fn live_targets(&self) -> usize {
        self.targets.len() - self.free_targets.len()
    }

    pub(super) fn set(&self, id: u32) -> Option<&SetState> {
        self.sets.get(id as usize)?.as_ref()
    }

    pub(super) fn is_target(&self, id: u32) -> bool {
        self.targets.get(id as usize).is_some_and(|t| t.holders != NOBODY)
    }

    /// The target of a live series.
    pub(super) fn owner(&self, series: u32) -> Option<u32> {
        self.owner.get(series as usize).copied().filter(|&t| t != NOBODY)
    }

    /// The set that the next block is expected to have.
    pub(super) fn expected_set(&self) -> u32 {
        self.set_after(self.last_set)
    }

    /// The set that came after a set the last time.
    pub(super) fn set_after(&self, set: u32) -> u32 {
        self.set(set).map_or(0, |s| s.next)
    }

    pub(super) fn add_target(&mut self) -> u32 {
        if let Some(id) = self.free_targets.pop() {
            self.targets[id as usize] = TargetState::default();
            return id;
        }
        self.targets.push(TargetState::default());
        self.targets.len() as u32 - 1
    }

    /// Makes room for a known count of new series, so that the tables do not double.
    pub(super) fn reserve_series(&mut self, more: usize) {
        let more = more.saturating_sub(self.free_series.len());
        self.values.series.reserve_exact(more);
        self.holders.reserve_exact(more);
        self.owner.reserve_exact(more);
    }

    /// A new series of a live target.
    pub(super) fn add_series(&mut self, target: u32) -> u32 {
        if let Some(id) = self.free_series.pop() {
            self.owner[id as usize] = target;
            return id;
        }
        self.owner.push(target);
        self.holders.push(0);
        self.values.series.push(SeriesState::new());
        self.owner.len() as u32 - 1
    }

    /// A new set of live series of a live target.
    pub(super) fn add_set(&mut self, target: u32, members: Box<[u32]>) -> u32 {
        for &member in &members {
            self.holders[member as usize] += 1;
        }
        let owner = &mut self.targets[target as usize];
        owner.holders += 1;
        let id = self.free_sets.pop().unwrap_or(self.sets.len() as u32);
        let state = SetState { target, members, clock: owner.clock, next: id };
        if let Some(slot) = self.sets.get_mut(id as usize) {
            *slot = Some(state);
        } else {
            self.sets.push(Some(state));
        }
        id
    }

    /// Forgets a live set, and the series and the target that nothing else holds.
    pub(super) fn drop_set(&mut self, id: u32) -> Option<Freed> {
        let set = self.sets.get_mut(id as usize)?.take()?;
        self.free_sets.push(id);
        let mut freed = Freed::default();
        for &member in &set.members {
            let holders = &mut self.holders[member as usize];
            *holders -= 1;
            if *holders == 0 && self.owner[member as usize] != NOBODY {
                self.owner[member as usize] = NOBODY;
                self.values.forget(member as usize);
                self.free_series.push(member);
                freed.series.push(member);
            }
        }
        let owner = &mut self.targets[set.target as usize];
        owner.holders -= 1;
        if owner.holders == 0 {
            owner.holders = NOBODY;
            self.free_targets.push(set.target);
            freed.target = Some(set.target);
        }
        Some(freed)
    }

    /// How many blocks the frame has.
    pub(super) fn code_count<C: Coder>(&mut self, c: &mut C, blocks: u32) -> u32 {
        if !self.same_blocks.code(c, blocks == self.last_blocks) {
            self.last_blocks = code_number(&mut self.values.ctx, c, Number::Blocks, i64::from(blocks)) as u32;
        }
        self.last_blocks
    }

    /// Which set a block has, its instant and whether its samples have instants of their own. `None` if there is
    /// no such set, which only a decoder can find.
    pub(super) fn code_heading<C: Coder>(&mut self, c: &mut C, heading: Heading) -> Option<Heading> {
        let expected = self.expected_set();
        let as_expected = self.same_set.code(c, heading.set == expected);
        let set = if as_expected {
            expected
        } else {
            u32::try_from(code_number(&mut self.values.ctx, c, Number::Set, i64::from(heading.set))).ok()?
        };
        if let Some(Some(last)) = self.sets.get_mut(self.last_set as usize) {
            last.next = set;
        }
        self.last_set = set;
        let state = self.sets.get_mut(set as usize)?.as_mut()?;
        let target = &mut self.targets[state.target as usize];
        let clock = if as_expected { state.clock } else { target.clock };
        let due = clock.at_ms.wrapping_add(clock.interval_ms);
        let late = code_number(&mut self.values.ctx, c, Number::Time, heading.at_ms.wrapping_sub(due));
        let at_ms = due.wrapping_add(late);
        let started = clock.at_ms != 0 && at_ms != clock.at_ms;
        let interval_ms = if started { at_ms.wrapping_sub(clock.at_ms) } else { clock.interval_ms };
        state.clock = Clock { at_ms, interval_ms };
        target.clock = state.clock;
        let change = self.same_stamping.code(c, heading.stamped == self.was_stamped);
        let stamped = self.was_stamped == change;
        self.was_stamped = stamped;
        self.values.note(at_ms as u64 ^ u64::from(set) << 48);
        Some(Heading { set, at_ms, stamped })
    }

    /// Codes the values of a set's block.
    pub(super) fn code_values<C: Coder>(&mut self, c: &mut C, set: u32, values: &mut [f64]) {
        if let Some(Some(set)) = self.sets.get(set as usize) {
            self.values.code(c, &set.members, values);
        }
    }

    /// Codes the instants of a block's samples.
    pub(super) fn code_stamps<C: Coder>(&mut self, c: &mut C, at_ms: i64, stamps: &mut [i64]) {
        let mut before = at_ms;
        for stamp in stamps {
            let step = code_number(&mut self.values.ctx, c, Number::Stamp, stamp.wrapping_sub(before));
            before = before.wrapping_add(step);
            *stamp = before;
            self.values.note(before as u64);
        }
    }
}
