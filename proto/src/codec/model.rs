//! What both ends remember of a series, and what they expect of it next.

use super::mix::Prob;
use super::scale::Scale;

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

/// How many predictions there are: no step; the mean step; back to the mean value; the step of the series that changed
/// before it in the block (buckets of one histogram, columns of one device).
pub(super) const PREDICTORS: usize = 4;
/// The decisions on a magnitude's class that a series has probabilities of its own for.
pub(super) const OWN_STEPS: usize = 6;
/// A mean takes in this share of each new entry, as a shift: an eighth follows a change of load within some scrapes.
const MEAN_SHIFT: u32 = 3;
/// The same for the usual class: a quarter.
const CLASS_SHIFT: u32 = 2;
/// Means are kept times 16, classes too, so that small ones move at all.
const FRACTION: u32 = 4;
/// What an unforeseeable sign adds to a prediction's cost, in sixteenths of a bit. A little less than the true 16, as
/// the choice between predictions should not follow chance.
const SIGN_COST: u16 = 14;
/// A new series' usual class: ten bits, about the middle of what counters and gauges step.
const FIRST_CLASS: u16 = 10 << FRACTION;
/// The most trailing zero bits that are taken off a step.
const MAX_ZEROS: u32 = 30;
/// So many steps with more trailing zero bits than known say that the series steps in larger units (pages, blocks).
const ZEROS_WINDOW: u8 = 6;
/// The most trust that a twin earns.
const MOST_TRUST: u8 = 15;

/// What both ends keep of a series that changes.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// The last value at the series' scale.
    pub(super) n: i64,
    /// The last step without its trailing zero bits, for series that step alike.
    pub(super) step: i64,
    /// The mean step times 16.
    pub(super) rate: i64,
    /// The mean value less `n`, times 16.
    pub(super) mean: i64,
    /// The model index plus one of a series that steps alike.
    pub(super) twin: u32,
    /// The block of the last change.
    pub(super) tick: u32,
    /// Whether the value changes.
    pub(super) change: Prob,
    /// Whether a magnitude's class is above the usual one, and how far off.
    pub(super) classes: [Prob; OWN_STEPS],
    /// The usual class times 16, for each predictor.
    pub(super) usual: [u16; PREDICTORS],
    /// The last signs, for each predictor.
    pub(super) signs: [u8; PREDICTORS],
    pub(super) scale: Scale,
    /// Trailing zero bits that steps have.
    pub(super) zeros: u8,
    /// The least trailing zero bits of late, and of how many steps.
    pub(super) least_zeros: u8,
    pub(super) zeros_seen: u8,
    /// How well the twin did.
    pub(super) trust: u8,
}

impl Model {
    /// The model of a series that had one value so far.
    pub(super) fn of(value: f64) -> Self {
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
            usual: [FIRST_CLASS; PREDICTORS],
            signs: [0; PREDICTORS],
            scale,
            zeros: 0,
            least_zeros: 63,
            zeros_seen: 0,
            trust: 0,
        }
    }

    /// Begins again at another scale.
    pub(super) fn rescale(&mut self, scale: Scale, last: f64) {
        *self = Self { n: scale.rough(last), change: self.change, ..Self::of(0.0) };
        self.scale = scale;
    }

    /// The predictor that did best of late.
    pub(super) fn predictor(&self) -> usize {
        let cost = |i: usize| {
            let mixed = self.signs[i] & 15 != 0 && self.signs[i] & 15 != 15;
            self.usual[i] + if mixed { SIGN_COST } else { 0 }
        };
        let mut best = 0;
        for i in 1..PREDICTORS {
            if cost(i) < cost(best) {
                best = i;
            }
        }
        best
    }

    /// What each predictor says of the next step without so many trailing zero bits.
    pub(super) fn predictions(&self, zeros: u32, neighbour: i64) -> [i64; PREDICTORS] {
        [0, (self.rate >> FRACTION) >> zeros, (self.mean >> FRACTION) >> zeros, neighbour >> zeros]
    }

    /// Takes in a step.
    pub(super) fn learn(&mut self, delta: i64, zeros: u32, predictions: [i64; PREDICTORS]) {
        let step = delta >> zeros;
        for (i, prediction) in predictions.into_iter().enumerate() {
            let rest = step.wrapping_sub(prediction);
            let class = class_of(rest) as i32;
            let usual = i32::from(self.usual[i]);
            self.usual[i] = (usual + (((class << FRACTION) - usual) >> CLASS_SHIFT)) as u16;
            self.signs[i] = self.signs[i] << 1 | u8::from(rest < 0);
        }
        self.n = self.n.wrapping_add(delta);
        let wide = delta.wrapping_shl(FRACTION);
        self.rate = self.rate.wrapping_add(wide.wrapping_sub(self.rate) >> MEAN_SHIFT);
        let off = self.mean.wrapping_sub(wide);
        self.mean = off.wrapping_sub(off >> MEAN_SHIFT);
        self.step = step;
        self.learn_zeros(delta, zeros);
    }

    /// The twin was right, or wrong.
    pub(super) fn trust_twin(&mut self, right: bool) {
        self.trust = if right { (self.trust + 1).min(MOST_TRUST) } else { self.trust / 2 };
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
            *usual = (*usual + (u16::from(from) << FRACTION))
                .saturating_sub(u16::from(to) << FRACTION)
                .min(64 << FRACTION);
        }
    }
}

/// The bit length of a magnitude: 0 for 0, 64 at most.
pub(super) fn class_of(n: i64) -> u32 {
    64 - n.unsigned_abs().leading_zeros()
}
