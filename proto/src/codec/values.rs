//! How a block's values are coded.
//!
//! Three quarters of all samples repeat the value before: [`Values::code`] spends next to nothing on them. A changed
//! value is an integer (see [`super::scale`]) that is coded as the difference to one of four predictions, by the
//! class of its magnitude (its bit length, near the class that is usual for the series), its sign, two leading bits
//! and the raw rest. Two series that step alike are found and coded as one.

use super::contexts::{Contexts, Number, STEPS, TWIN_SLOTS, USUAL_STEPS, code_number};
use super::model::{Model, SeriesState, class_of};
use super::range::Coder;
use super::scale::Scale;
use crate::metrics::STALE_NAN_BITS;

/// Members are taken in groups of this many, the bits of a word.
const GROUP: usize = 64;
/// Smaller steps are alike by chance: eight values or less.
const TWIN_CLASS: u32 = 4;
/// A new twin may fail twice before another takes its place.
const FIRST_TRUST: u8 = 2;

/// The state of one stream's values.
#[derive(Debug, Clone)]
pub(super) struct Values {
    pub(super) series: Vec<SeriesState>,
    pub(super) models: Vec<Model>,
    pub(super) free_models: Vec<u32>,
    pub(super) ctx: Contexts,
    /// A hash of all that was coded.
    pub(super) digest: u64,
}

impl Values {
    /// Takes something that was coded into the digest.
    pub(super) fn note(&mut self, word: u64) {
        self.digest = (self.digest.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Codes a block's values. The encoder is given them; the decoder fills them in.
    pub(super) fn code<C: Coder>(&mut self, c: &mut C, members: &[u32], values: &mut [f64]) {
        self.ctx.tick = self.ctx.tick.wrapping_add(1);
        let mut around = 0u32;
        for (ids, values) in members.chunks(GROUP).zip(values.chunks_mut(GROUP)) {
            let (mut quiet, mut changed) = (0u64, 0u64);
            for (i, (&id, value)) in ids.iter().zip(values.iter_mut()).enumerate() {
                let state = &self.series[id as usize];
                quiet |= u64::from(state.history == 0 && !state.fresh) << i;
                if C::ENCODING {
                    changed |= u64::from(state.last.to_bits() != value.to_bits()) << i;
                } else {
                    *value = state.last;
                }
            }
            let all = u64::MAX >> (GROUP - ids.len());
            let mut active = all & !quiet;
            if quiet != 0 {
                let size = (quiet.count_ones().ilog2() as usize).min(7);
                if self.ctx.quiet_group[size].code(c, changed & quiet != 0) {
                    active = all;
                }
            }
            while active != 0 {
                let i = active.trailing_zeros() as usize;
                active &= active - 1;
                let id = ids[i] as usize;
                let change = self.code_change(c, id, around, changed >> i & 1 == 1);
                around = around << 1 | u32::from(change);
                let state = &mut self.series[id];
                let fresh = std::mem::replace(&mut state.fresh, false);
                state.history = state.history << 1 | u16::from(change);
                if change {
                    values[i] =
                        if fresh { self.code_first(c, values[i]) } else { self.code_value(c, id, values[i]) };
                    self.series[id].last = values[i];
                    self.note(values[i].to_bits() ^ id as u64);
                }
            }
        }
    }

    fn code_change<C: Coder>(&mut self, c: &mut C, id: usize, around: u32, change: bool) -> bool {
        let state = &self.series[id];
        let ctx = &mut self.ctx;
        if state.fresh {
            return ctx.fresh[(around & 1) as usize].code(c, change);
        }
        if state.history == 0 {
            return ctx.quiet[(around & 1) as usize].code(c, change);
        }
        let history = usize::from(state.history & 127);
        let Some(at) = (state.model as usize).checked_sub(1) else {
            return ctx.change_history[history << 2 | 3].code(c, change);
        };
        let twin = match (self.models[at].twin as usize).checked_sub(1) {
            None => 0,
            Some(twin) if self.models[twin].tick == ctx.tick => 2,
            Some(_) => 1,
        };
        let first = &mut ctx.change_history[history << 2 | twin];
        let second = &mut ctx.change_around[((around & 15) as usize) << 4 | twin << 2 | (history & 3)];
        let mixer = &mut ctx.change_mixers[twin << 2 | (history & 3)];
        mixer.code(c, first, second, &mut self.models[at].change, change)
    }

    /// The first value of a series, if it is not 0.
    fn code_first<C: Coder>(&mut self, c: &mut C, value: f64) -> f64 {
        let scale = self.code_scale(c, Scale::of(value));
        if scale == Scale::BITS {
            return f64::from_bits(c.raw(64, value.to_bits()));
        }
        scale.value(code_number(&mut self.ctx, c, Number::First, scale.rough(value)))
    }

    fn code_scale<C: Coder>(&mut self, c: &mut C, scale: Scale) -> Scale {
        let mut node = 1;
        for level in (0..Scale::WIRE_BITS).rev() {
            let bit = self.ctx.first_scale[node & 31].code(c, scale.to_wire() >> level & 1 == 1);
            node = node << 1 | usize::from(bit);
        }
        Scale::from_wire(node as u64 & 31).unwrap_or(Scale::BITS)
    }

    fn model_of(&mut self, id: usize) -> usize {
        let state = &mut self.series[id];
        if let Some(at) = (state.model as usize).checked_sub(1) {
            return at;
        }
        let model = Model::of(state.last);
        let at = if let Some(at) = self.free_models.pop() {
            self.models[at as usize] = model;
            at as usize
        } else {
            self.models.push(model);
            self.models.len() - 1
        };
        state.model = at as u32 + 1;
        at
    }

    /// Gives a series' model back.
    pub(super) fn forget(&mut self, id: usize) {
        let state = &mut self.series[id];
        if let Some(at) = state.model.checked_sub(1) {
            self.free_models.push(at);
        }
        *state = SeriesState::new();
    }

    /// A changed value.
    fn code_value<C: Coder>(&mut self, c: &mut C, id: usize, value: f64) -> f64 {
        let at = self.model_of(id);
        let fits = if C::ENCODING { self.models[at].scale.exact(value) } else { None };
        let settled = usize::from(self.models[at].tick != 0);
        if self.ctx.escape[settled].code(c, fits.is_none()) {
            return self.code_escape(c, at, id, value);
        }
        let tick = self.ctx.tick;
        let twin = (self.models[at].twin as usize).checked_sub(1).map(|twin| &self.models[twin]);
        let alike = twin.filter(|twin| twin.tick == tick).map(|twin| twin.step);
        let model = &mut self.models[at];
        let zeros = u32::from(model.zeros);
        let delta = fits.unwrap_or(0).wrapping_sub(model.n);
        if let Some(step) = alike {
            let same = step.wrapping_shl(zeros);
            let right = self.ctx.twin[usize::from(model.trust)].code(c, same == delta);
            model.trust_twin(right);
            if right {
                let predictions = model.predictions(zeros, self.ctx.neighbour);
                model.learn(same, zeros, predictions);
                model.tick = tick;
                self.ctx.neighbour = same;
                return model.scale.value(model.n);
            }
        }
        code_delta(&mut self.ctx, c, model, delta);
        model.tick = tick;
        let value = model.scale.value(model.n);
        self.find_twin(at);
        value
    }

    fn code_escape<C: Coder>(&mut self, c: &mut C, at: usize, id: usize, value: f64) -> f64 {
        let stale = value.to_bits() == STALE_NAN_BITS;
        if self.ctx.escape_kind[0].code(c, stale) {
            return f64::from_bits(STALE_NAN_BITS);
        }
        // A value that is no number says nothing of those that follow.
        if self.ctx.escape_kind[1].code(c, !value.is_finite()) {
            return f64::from_bits(c.raw(64, value.to_bits()));
        }
        let scale = self.code_scale(c, Scale::of(value));
        let last = self.series[id].last;
        let tick = self.ctx.tick;
        let model = &mut self.models[at];
        model.rescale(scale, last);
        let delta = scale.rough(value).wrapping_sub(model.n);
        code_delta(&mut self.ctx, c, model, delta);
        model.tick = tick;
        model.scale.value(model.n)
    }

    /// Looks whether an earlier series of this block made the same step.
    fn find_twin(&mut self, at: usize) {
        let model = &self.models[at];
        if class_of(model.step) < TWIN_CLASS {
            return;
        }
        let hash = (model.step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55;
        let slot = &mut self.ctx.twins[hash as usize & (TWIN_SLOTS - 1)];
        let (tick, found) = *slot;
        if tick == self.ctx.tick && self.models[found as usize].step == model.step {
            let model = &mut self.models[at];
            if model.trust == 0 && found as usize != at {
                model.twin = found + 1;
                model.trust = FIRST_TRUST;
            }
        } else {
            *slot = (self.ctx.tick, at as u32);
        }
    }
}

/// Codes a step and lets the model take it in.
fn code_delta<C: Coder>(ctx: &mut Contexts, c: &mut C, model: &mut Model, delta: i64) {
    let mut zeros = u32::from(model.zeros);
    if zeros > 0 {
        let multiple = delta & ((1 << zeros) - 1) == 0;
        if !ctx.multiple[usize::from(model.zeros)].code(c, multiple) {
            zeros = 0;
        }
    }
    let predictions = model.predictions(zeros, ctx.neighbour);
    let which = model.predictor();
    let rest = (delta >> zeros).wrapping_sub(predictions[which]);
    let rest = code_rest(ctx, c, model, which, rest);
    let delta = predictions[which].wrapping_add(rest).wrapping_shl(zeros);
    model.learn(delta, zeros, predictions);
    ctx.neighbour = delta;
}

/// What is left of a step after its prediction.
fn code_rest<C: Coder>(ctx: &mut Contexts, c: &mut C, model: &mut Model, which: usize, rest: i64) -> i64 {
    let usual = model.usual[which];
    let expected = (u32::from(usual) + 8) >> 4;
    let wanted = class_of(rest);
    let mut step = |ctx: &mut Contexts, model: &mut Model, at: usize, bit: bool| {
        let first = &mut ctx.class_usual[(usize::from(usual >> 3)).min(USUAL_STEPS - 1) * STEPS + at];
        let second = &mut ctx.class_around[(usize::from(usual & 15) >> 1) * STEPS + at];
        let own = &mut model.classes[OWN_AT[at]];
        ctx.class_mixers[at].code(c, first, second, own, bit)
    };
    let mut class = expected;
    if step(ctx, model, 0, wanted > expected) {
        class += 1;
        let mut at = 1;
        while class < 64 && step(ctx, model, at, wanted > class) {
            class += 1;
            at = (at + 1).min(7);
        }
    } else {
        let mut at = 8;
        while class > 0 && step(ctx, model, at, wanted < class) {
            class -= 1;
            at = (at + 1).min(15);
        }
    }
    if class == 0 {
        return 0;
    }
    let signs = usize::from(model.signs[which] & 31);
    let negative = ctx.sign[which * 32 + signs].code(c, rest < 0);
    let size = rest.unsigned_abs();
    let mut magnitude = 1u64;
    let mut left = class - 1;
    let mut node = 1;
    while left > 0 && node < 4 {
        left -= 1;
        let bit = ctx.leading[((class as usize - 1) << 2) | node].code(c, size >> left & 1 == 1);
        magnitude = magnitude << 1 | u64::from(bit);
        node = node << 1 | usize::from(bit);
    }
    if left > 0 {
        magnitude = magnitude << left | c.raw(left, size & ((1 << left) - 1));
    }
    if negative { (magnitude as i64).wrapping_neg() } else { magnitude as i64 }
}

/// Which of a series' own probabilities goes with each decision.
const OWN_AT: [usize; STEPS] = [0, 1, 2, 2, 2, 2, 2, 2, 3, 4, 5, 5, 5, 5, 5, 5];
