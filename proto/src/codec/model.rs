//! How values are predicted and coded.
//!
//! Three quarters of all samples repeat the value before: [`code_values`] spends next to nothing on them. A changed
//! value is an integer (see [`super::scale`]) that is coded as the difference to one of three predictions, by the
//! class of its magnitude (its bit length, near the class that is usual for the series), its sign, two leading bits
//! and raw rest. Two series that step alike are found and coded as one.

use super::mix::{Mixer, Prob};
use super::range::Coder;
use super::scale::Scale;
use crate::metrics::STALE_NAN_BITS;

/// What both ends keep of a series. A series that never changed has no [`Model`].
#[derive(Debug, Clone, Copy)]
pub(super) struct SeriesState {
    /// The last value.
    pub(super) last: f64,
    /// Index of the model plus one.
    pub(super) model: u32,
    /// The last sixteen blocks, newest in the lowest bit: whether the value changed.
    pub(super) history: u16,
    /// Had no value yet.
    pub(super) fresh: bool,
}

impl SeriesState {
    /// A series before its first value.
    pub(super) const fn new() -> Self {
        Self { last: 0.0, model: 0, history: 0, fresh: true }
    }
}

const PREDICTORS: usize = 4;
const OWN_STEPS: usize = 6;

/// What both ends keep of a series that changes.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// The last value at the series' scale.
    n: i64,
    /// The last step without its trailing zero bits, for series that step alike.
    step: i64,
    /// The mean step times 16.
    rate: i64,
    /// The mean value less `n`, times 16.
    mean: i64,
    /// The model index plus one of a series that steps alike.
    twin: u32,
    /// The block of the last change.
    tick: u32,
    /// Whether the value changes.
    change: Prob,
    /// Whether a magnitude's class is above the usual one, and how far off.
    classes: [Prob; OWN_STEPS],
    /// The usual class times 16, for each predictor.
    usual: [u16; PREDICTORS],
    /// The last signs, for each predictor.
    signs: [u8; PREDICTORS],
    scale: Scale,
    /// Trailing zero bits that steps have.
    zeros: u8,
    /// The least trailing zero bits of late, and of how many steps.
    least_zeros: u8,
    zeros_seen: u8,
    /// How well the twin did.
    trust: u8,
}

impl Model {
    fn of(value: f64) -> Self {
        let scale = Scale::of(value);
        Self {
            n: scale.rough(value),
            step: 0,
            rate: 0,
            mean: 0,
            twin: 0,
            tick: 0,
            change: Prob::default(),
            classes: [Prob::default(); OWN_STEPS],
            usual: [10 << 4; PREDICTORS],
            signs: [0; PREDICTORS],
            scale,
            zeros: 0,
            least_zeros: 63,
            zeros_seen: 0,
            trust: 0,
        }
    }

    fn rescale(&mut self, scale: Scale, last: f64) {
        *self = Self { n: scale.rough(last), change: self.change, ..Self::of(0.0) };
        self.scale = scale;
    }

    /// The predictor that did best of late: 0 says no step, 1 the mean step, 2 back to the mean value.
    fn predictor(&self) -> usize {
        let cost = |i: usize| {
            let mixed = self.signs[i] & 15 != 0 && self.signs[i] & 15 != 15;
            self.usual[i] + if mixed { 14 } else { 0 }
        };
        let mut best = 0;
        for i in 1..PREDICTORS {
            if cost(i) < cost(best) {
                best = i;
            }
        }
        best
    }

    fn predictions(&self, zeros: u32, neighbour: i64) -> [i64; PREDICTORS] {
        [0, (self.rate >> 4) >> zeros, (self.mean >> 4) >> zeros, neighbour >> zeros]
    }

    /// Takes in a step.
    fn learn(&mut self, delta: i64, zeros: u32, predictions: [i64; PREDICTORS]) {
        let step = delta >> zeros;
        for (i, prediction) in predictions.into_iter().enumerate() {
            let rest = step.wrapping_sub(prediction);
            let class = class_of(rest) as i32;
            let usual = i32::from(self.usual[i]);
            self.usual[i] = (usual + ((class * 16 - usual) >> 2)) as u16;
            self.signs[i] = self.signs[i] << 1 | u8::from(rest < 0);
        }
        self.n = self.n.wrapping_add(delta);
        let wide = delta.wrapping_mul(16);
        self.rate = self.rate.wrapping_add(wide.wrapping_sub(self.rate) >> 3);
        let off = self.mean.wrapping_sub(wide);
        self.mean = off.wrapping_sub(off >> 3);
        self.step = step;
        self.learn_zeros(delta, zeros);
    }

    fn learn_zeros(&mut self, delta: i64, used: u32) {
        if delta == 0 {
            return;
        }
        let zeros = delta.trailing_zeros().min(MAX_ZEROS) as u8;
        if u32::from(self.zeros) != used {
            self.shift_classes(self.zeros, zeros);
            self.zeros = zeros;
            (self.least_zeros, self.zeros_seen) = (63, 0);
            return;
        }
        self.least_zeros = self.least_zeros.min(zeros);
        self.zeros_seen += 1;
        if self.zeros_seen == ZEROS_WINDOW {
            if self.least_zeros > self.zeros {
                self.shift_classes(self.zeros, self.least_zeros);
                self.zeros = self.least_zeros;
            }
            (self.least_zeros, self.zeros_seen) = (63, 0);
        }
    }

    fn shift_classes(&mut self, from: u8, to: u8) {
        for usual in &mut self.usual {
            *usual = (*usual + 16 * u16::from(from)).saturating_sub(16 * u16::from(to)).min(64 << 4);
        }
    }
}

const MAX_ZEROS: u32 = 30;
const ZEROS_WINDOW: u8 = 6;

/// The bit length of a magnitude: 0 for 0, 64 at most.
fn class_of(n: i64) -> u32 {
    64 - n.unsigned_abs().leading_zeros()
}

const USUAL_STEPS: usize = 130;
const STEPS: usize = 16;
/// Slots of the table in which twins are found; a power of two.
const TWIN_SLOTS: usize = 512;

/// What all series of a stream have in common.
#[derive(Debug, Clone)]
pub(super) struct Contexts {
    quiet_group: [Prob; 8],
    quiet: [Prob; 2],
    fresh: [Prob; 2],
    change_history: Vec<Prob>,
    change_around: Vec<Prob>,
    change_mixers: [Mixer; 16],
    escape: [Prob; 4],
    escape_kind: [Prob; 4],
    twin: [Prob; 16],
    multiple: [Prob; 32],
    class_usual: Vec<Prob>,
    class_around: Vec<Prob>,
    class_mixers: Vec<Mixer>,
    sign: [Prob; PREDICTORS * 32],
    leading: Vec<Prob>,
    first_scale: [Prob; 32],
    numbers: Vec<Prob>,
    twins: Vec<(u32, u32)>,
    tick: u32,
    /// The step of the series that changed last.
    neighbour: i64,
}

impl Contexts {
    pub(super) fn new() -> Self {
        Self {
            quiet_group: [Prob::at(6000); 8],
            quiet: [Prob::at(1500); 2],
            fresh: [Prob::default(); 2],
            change_history: vec![Prob::default(); 128 * 4],
            change_around: vec![Prob::default(); 256],
            change_mixers: [Mixer::default(); 16],
            escape: [Prob::at(1000); 4],
            escape_kind: [Prob::default(); 4],
            twin: [Prob::default(); 16],
            multiple: [Prob::at(60000); 32],
            class_usual: vec![Prob::default(); USUAL_STEPS * STEPS],
            class_around: vec![Prob::default(); 8 * STEPS],
            class_mixers: vec![Mixer::default(); STEPS],
            sign: [Prob::default(); PREDICTORS * 32],
            leading: vec![Prob::default(); 64 * 4],
            first_scale: [Prob::default(); 32],
            numbers: vec![Prob::default(); NUMBER_KINDS * 64],
            twins: vec![(0, 0); TWIN_SLOTS],
            tick: 0,
            neighbour: 0,
        }
    }

    /// Heap bytes.
    pub(super) fn resident_bytes(&self) -> usize {
        size_of::<Self>()
            + size_of::<Prob>()
                * (self.change_history.len()
                    + self.change_around.len()
                    + self.class_usual.len()
                    + self.class_around.len()
                    + self.leading.len()
                    + self.numbers.len())
            + size_of::<Mixer>() * self.class_mixers.len()
            + 8 * self.twins.len()
    }
}

const NUMBER_KINDS: usize = 8;

/// What a small number outside the values is. Each kind has its own probabilities.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// Blocks in the frame.
    Blocks,
    /// A set that is not the expected one.
    Set,
    /// The change of the interval between two blocks of a set, in milliseconds.
    Time,
    /// A sample's own stamp less the one before it in the block.
    Stamp,
    /// A first value.
    First,
}

/// Codes a signed number of any size, small ones in few bits.
pub(super) fn code_number<C: Coder>(ctx: &mut Contexts, c: &mut C, kind: Number, n: i64) -> i64 {
    let probs = &mut ctx.numbers[kind as usize * 64..][..64];
    let zigzag = (n.wrapping_shl(1) ^ (n >> 63)) as u64;
    let class = 64 - zigzag.leading_zeros() as usize;
    let mut got = 0;
    while got < 64 && !probs[got.min(63)].code(c, class == got) {
        got += 1;
    }
    let zigzag = if got < 2 {
        got as u64
    } else {
        let bits = got as u32 - 1;
        1 << bits | c.raw(bits, zigzag & ((1 << bits) - 1))
    };
    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
}

/// One flag outside the values.
pub(super) fn code_flag<C: Coder>(prob: &mut Prob, c: &mut C, flag: bool) -> bool {
    prob.code(c, flag)
}

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
        for (ids, values) in members.chunks(64).zip(values.chunks_mut(64)) {
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
            let all = u64::MAX >> (64 - ids.len());
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
            let same = self.ctx.twin[usize::from(model.trust)].code(c, step.wrapping_shl(zeros) == delta);
            if same {
                model.trust = (model.trust + 1).min(15);
                let predictions = model.predictions(zeros, self.ctx.neighbour);
                let delta = step.wrapping_shl(zeros);
                model.learn(delta, zeros, predictions);
                self.ctx.neighbour = delta;
                model.tick = tick;
                return model.scale.value(model.n);
            }
            model.trust /= 2;
        }
        let delta = code_delta(&mut self.ctx, c, model, delta);
        let value = model.scale.value(model.n);
        model.tick = tick;
        let _ = delta;
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
        if class_of(model.step) < 4 {
            return;
        }
        let hash = (model.step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55;
        let slot = &mut self.ctx.twins[hash as usize & (TWIN_SLOTS - 1)];
        let (tick, found) = *slot;
        if tick == self.ctx.tick && self.models[found as usize].step == model.step {
            let model = &mut self.models[at];
            if model.trust == 0 && found as usize != at {
                model.twin = found + 1;
                model.trust = 2;
            }
        } else {
            *slot = (self.ctx.tick, at as u32);
        }
    }
}

/// Codes a step and lets the model take it in.
fn code_delta<C: Coder>(ctx: &mut Contexts, c: &mut C, model: &mut Model, delta: i64) -> i64 {
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
    delta
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

const OWN_AT: [usize; STEPS] = [0, 1, 2, 2, 2, 2, 2, 2, 3, 4, 5, 5, 5, 5, 5, 5];
