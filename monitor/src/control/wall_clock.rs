//! The host's time of day, as its users read it.

use std::mem::MaybeUninit;

/// Returns a time since 1970 as hours, minutes and seconds in the local time zone.
#[must_use]
pub fn local_time(unix_ms: u64) -> String {
    let seconds = libc::time_t::try_from(unix_ms / 1000).unwrap_or(libc::time_t::MAX);
    let mut time = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are valid for the call, and `localtime_r` keeps neither.
    let is_set = !unsafe { libc::localtime_r(&raw const seconds, time.as_mut_ptr()) }.is_null();
    if !is_set {
        return format!("{seconds} s after 1970");
    }
    // SAFETY: it was set, as the result is not null.
    let time = unsafe { time.assume_init() };
    format!("{:02}:{:02}:{:02}", time.tm_hour, time.tm_min, time.tm_sec)
}

#[cfg(test)]
mod tests {
    use super::local_time;

    #[test]
    fn seconds_and_minutes_are_those_of_the_time() {
        // Time zones differ by whole quarters of an hour.
        let time = local_time(1_764_227_403_999);
        let parts: Vec<u32> = time.split(':').map(|part| part.parse().unwrap()).collect();
        assert!(parts[0] < 24 && parts[1] % 15 == 10 && parts[2] == 3, "{time}");
        assert!(!local_time(u64::MAX).is_empty());
    }
}
