//! The one call that no safe crate wraps: `adjtimex(2)`, for reading only.
//!
//! This module and `program_text` are the agent's only ones with `unsafe`; everywhere else the lint stays in force.

#![allow(unsafe_code, reason = "neither rustix nor nix wraps adjtimex(2); the proof stands at the call")]

/// How the kernel disciplines its clock, as `adjtimex(2)` says: the fields of `struct timex` in the kernel's units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockState {
    /// What the call returned: `TIME_OK`, a leap second's states, or `TIME_ERROR` (5) for a clock that is not
    /// synchronised.
    pub state: i32,
    /// Offset to the reference clock, in nanoseconds if `status` has `STA_NANO`, else in microseconds.
    pub offset: i64,
    /// Frequency offset, in parts per million with 16 bits after the point.
    pub freq: i64,
    /// Greatest error, in microseconds.
    pub maxerror: i64,
    /// Estimated error, in microseconds.
    pub esterror: i64,
    /// The bits `STA_…`.
    pub status: i32,
    /// Time constant of the phase-locked loop.
    pub constant: i64,
    /// Time between two ticks, in microseconds.
    pub tick: i64,
    /// Frequency of the pulse per second, in parts per million with 16 bits after the point.
    pub ppsfreq: i64,
    /// Jitter of the pulse per second, in the unit of `offset`.
    pub jitter: i64,
    /// Duration of an interval of the pulse per second, in seconds as a power of two.
    pub shift: i32,
    /// Stability of the pulse per second, in parts per million with 16 bits after the point.
    pub stabil: i64,
    /// How often the pulse's jitter was over its limit.
    pub jitcnt: i64,
    /// Calibration intervals.
    pub calcnt: i64,
    /// Calibration errors.
    pub errcnt: i64,
    /// How often the pulse's stability was over its limit.
    pub stbcnt: i64,
    /// Seconds from UTC to International Atomic Time.
    pub tai: i32,
}

/// Asks the kernel; `Err` is the error number. Needs no privilege: nothing is set.
pub(super) fn read() -> Result<ClockState, i32> {
    // SAFETY: `timex` has only integers and arrays of them, for which all bits zero is a value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a whole `timex` of the C library's own layout that lives, and that nobody else has,
    // until the call returns; the call keeps no pointer. `modes` is zero, so that it only fills the structure in.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or_default());
    }
    // The C library's `long` has 64 bits on most machines, and then these casts change nothing.
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless)]
    Ok(ClockState {
        state,
        offset: timex.offset as i64,
        freq: timex.freq as i64,
        maxerror: timex.maxerror as i64,
        esterror: timex.esterror as i64,
        status: timex.status,
        constant: timex.constant as i64,
        tick: timex.tick as i64,
        ppsfreq: timex.ppsfreq as i64,
        jitter: timex.jitter as i64,
        shift: timex.shift,
        stabil: timex.stabil as i64,
        jitcnt: timex.jitcnt as i64,
        calcnt: timex.calcnt as i64,
        errcnt: timex.errcnt as i64,
        stbcnt: timex.stbcnt as i64,
        tai: timex.tai,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_its_tick() {
        // 100 ticks a second, give or take the ten percent that a clock may be slewed by.
        let state = read().unwrap();
        assert!((9_000..=11_000).contains(&state.tick), "{state:?}");
        assert!((0..=5).contains(&state.state), "{state:?}");
    }
}
