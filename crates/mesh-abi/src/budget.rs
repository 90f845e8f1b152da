//! How much the programs tell in a short time, whatever there is to tell.

/// How much of one kind one CPU has told lately.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The window: `bpf_ktime_get_ns` >> [`WINDOW_SHIFT`].
    pub window: u64,
    /// Events told in it.
    pub told: u64,
}

const _: () = assert!(size_of::<Budget>() == 16);

/// A window is 2^27 ns long, some 134 ms.
pub const WINDOW_SHIFT: u32 = 27;

impl Budget {
    /// Whether one more may be told at this time (nanoseconds), of `most` a window; counts it.
    #[inline(always)]
    pub fn allows(&mut self, at_ns: u64, most: u64) -> bool {
        let window = at_ns >> WINDOW_SHIFT;
        if self.window != window {
            *self = Self { window, told: 0 };
        }
        self.told += 1;
        self.told <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_has_its_own_budget() {
        let mut budget = Budget::default();
        let window = 1 << WINDOW_SHIFT;
        let allowed: [bool; 5] = [0, 1, 2, window, window + 1].map(|at| budget.allows(at, 2));
        assert_eq!(allowed, [true, true, false, true, true]);
    }
}
