//! The token bucket, as the generic cell rate algorithm keeps it: one number for all of it, so that one atomic holds it.

use std::time::Duration;

/// A bucket that tokens drip into steadily, as Envoy's local rate limit fills its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenBucket {
    size: u32,
    fill: u32,
    interval: Duration,
}

/// Why there is no such bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// Nothing would ever pass.
    #[error("a bucket holds at least one token, and at least one is filled in at a time")]
    Empty,
    /// More than one token a nanosecond, or an interval too long to be counted.
    #[error("the interval is from 1ms to 365 days, and no more than 1,000,000,000 tokens come in a second")]
    Interval,
    /// It would take longer to fill than can be counted.
    #[error("an empty bucket has to be full again within 290 years: fewer tokens, or more of them at a time")]
    Slow,
}

/// The longest interval.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// The longest that an empty bucket takes to fill: half of what 64 bits of nanoseconds hold, so that no sum with it overflows.
const LONGEST_FILL: u64 = u64::MAX / 2;

impl TokenBucket {
    /// A bucket of `size` tokens, full at first, of which `fill` come back each `interval`.
    ///
    /// # Errors
    /// See [`BucketError`].
    pub fn new(size: u32, fill: u32, interval: Duration) -> Result<Self, BucketError> {
        if size == 0 || fill == 0 {
            return Err(BucketError::Empty);
        }
        let bucket = Self { size, fill, interval };
        let in_bounds = (Duration::from_millis(1)..=LONGEST).contains(&interval) && bucket.apart() > 0;
        if !in_bounds {
            return Err(BucketError::Interval);
        }
        if bucket.whole() > LONGEST_FILL {
            return Err(BucketError::Slow);
        }
        Ok(bucket)
    }

    /// A bucket of `size` tokens, full at first, of which `fill` come back each second; of either at least one.
    #[must_use]
    pub fn per_second(size: u16, fill: u16) -> Self {
        Self { size: size.max(1).into(), fill: fill.max(1).into(), interval: Duration::from_secs(1) }
    }

    /// Nanoseconds from one token to the next.
    fn apart(&self) -> u64 {
        u64::try_from(self.interval.as_nanos() / u128::from(self.fill)).unwrap_or(u64::MAX)
    }

    /// Nanoseconds in which an empty bucket fills.
    fn whole(&self) -> u64 {
        self.apart().saturating_mul(u64::from(self.size))
    }

    /// Takes a token at `now`. `full_at` is when the bucket is full again if nobody takes any more, and so all that is
    /// known of it; both are nanoseconds since any moment. Gives the new one, or none where no token is left.
    #[must_use]
    pub fn take(&self, full_at: u64, now: u64) -> Option<u64> {
        let after = full_at.max(now).saturating_add(self.apart());
        (after - now <= self.whole()).then_some(after)
    }

    /// The most tokens.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }
}

impl std::fmt::Display for TokenBucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} per {:?}", self.fill, self.interval)?;
        if self.size == self.fill { Ok(()) } else { write!(f, ", up to {} at once", self.size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of a thousand at once pass, and the bucket after.
    fn burst(bucket: &TokenBucket, mut full_at: u64, now: u64) -> (u32, u64) {
        let mut passed = 0;
        for _ in 0..1_000 {
            if let Some(after) = bucket.take(full_at, now) {
                (full_at, passed) = (after, passed + 1);
            }
        }
        (passed, full_at)
    }

    #[test]
    fn a_full_bucket_gives_its_size_and_then_what_drips_in() {
        let bucket = TokenBucket::new(10, 4, Duration::from_secs(1)).expect("a bucket");
        let (passed, full_at) = burst(&bucket, 0, 5 * SECOND);
        assert_eq!(passed, 10);
        let (passed, full_at) = burst(&bucket, full_at, 5 * SECOND + SECOND / 4);
        assert_eq!(passed, 1, "a token each quarter of a second");
        let (passed, full_at) = burst(&bucket, full_at, 6 * SECOND);
        assert_eq!(passed, 3);
        let (passed, _) = burst(&bucket, full_at, 60 * SECOND);
        assert_eq!(passed, 10, "no more than its size, however long nobody came");
    }

    #[test]
    fn what_no_bucket_can_be_is_refused() {
        let second = Duration::from_secs(1);
        assert_eq!(TokenBucket::new(0, 1, second), Err(BucketError::Empty));
        assert_eq!(TokenBucket::new(1, 0, second), Err(BucketError::Empty));
        assert_eq!(TokenBucket::new(1, 1, Duration::ZERO), Err(BucketError::Interval));
        assert_eq!(TokenBucket::new(1, u32::MAX, second), Err(BucketError::Interval));
        assert_eq!(TokenBucket::new(1, 1, LONGEST * 2), Err(BucketError::Interval));
        assert_eq!(TokenBucket::new(u32::MAX, 1, LONGEST), Err(BucketError::Slow));
        let largest = TokenBucket::new(u32::MAX, 1, second).expect("a bucket");
        assert!(largest.take(u64::MAX, 0).is_none(), "no number overflows");
    }
}
