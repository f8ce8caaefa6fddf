//! What is kept of what a runtime says: bounded, and no secrets.

use super::super::PodIdentity;

/// Labels of one container that are kept; more is no label set that anybody reads.
const MAX_LABELS: usize = 256;
/// Bytes of one container's labels that are kept. A pod's annotations, which containerd and CRI-O do not mix in, are
/// what grows; labels of a Compose or Kubernetes container are one or two KiB.
const MAX_LABEL_BYTES: usize = 32 << 10;

type Pairs = Box<[(Box<str>, Box<str>)]>;

/// Labels in the order of their names; those that do not fit are left out, the last names first.
pub(super) fn labels<K: AsRef<str>, V: AsRef<str>>(all: impl IntoIterator<Item = (K, V)>) -> Pairs {
    let mut pairs: Vec<(Box<str>, Box<str>)> =
        all.into_iter().map(|(name, value)| (name.as_ref().into(), value.as_ref().into())).collect();
    pairs.sort_unstable();
    pairs.truncate(MAX_LABELS);
    let mut bytes = 0;
    pairs.retain(|(name, value)| {
        bytes += name.len() + value.len();
        bytes <= MAX_LABEL_BYTES
    });
    pairs.into_boxed_slice()
}

/// Of `NAME=value` lines those whose names are listed.
pub(super) fn env<S: AsRef<str>>(all: &[S], listed: &[Box<str>]) -> Pairs {
    if listed.is_empty() {
        return Box::default();
    }
    let pairs = all.iter().filter_map(|line| line.as_ref().split_once('='));
    labels(pairs.filter(|(name, _)| listed.iter().any(|l| **l == **name)))
}

/// The pod, from the labels that the kubelet puts on each container (`pkg/kubelet/types/labels.go`) and on each
/// sandbox, which has no container name.
pub(super) fn pod(labels: &[(Box<str>, Box<str>)]) -> Option<PodIdentity> {
    let label = |name: &str| {
        let at = labels.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(labels[at].1.clone())
    };
    Some(PodIdentity {
        pod: label("io.kubernetes.pod.name")?,
        namespace: label("io.kubernetes.pod.namespace")?,
        uid: label("io.kubernetes.pod.uid").unwrap_or_default(),
        container: label("io.kubernetes.container.name").unwrap_or_else(|| "POD".into()),
    })
}

/// Whether this can be a container's id: it goes into paths of requests.
pub(super) fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Milliseconds since the Unix epoch of an RFC 3339 time; none for the year 1, with which runtimes written in Go say
/// "never".
pub(super) fn unix_ms(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let time = rest.strip_prefix(['T', 't', ' '])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let mut millis = fraction.bytes().chain(*b"000").take(3);
    let millis = millis.try_fold(0, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))?;
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign, offset @ ..] => {
            let (hours, minutes) = std::str::from_utf8(offset).ok()?.split_once(':')?;
            let seconds = hours.parse::<i64>().ok()? * 3_600 + minutes.parse::<i64>().ok()? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        [] => return None,
    };
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    if year <= 1 || !in_range {
        return None;
    }
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    Some(seconds * 1_000 + millis)
}

/// Days from 1970-01-01 in the Gregorian calendar, counting years from March so that the leap day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_docker_and_podman_are_read() {
        assert_eq!(unix_ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_ms("2026-11-21T15:34:36.352879112Z"), Some(1_795_275_276_352));
        assert_eq!(unix_ms("2026-11-21T16:34:36.3+01:00"), Some(1_795_275_276_300));
        assert_eq!(unix_ms("2024-02-29T23:59:59-00:30"), Some(1_709_252_999_000));
        for bad in
            ["0001-01-01T00:00:00Z", "", "2026-11-21", "2026-11-21T15:34:36", "2026-13-01T00:00:00Z", "é"]
        {
            assert_eq!(unix_ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn labels_are_sorted_and_bounded() {
        let many = (0..1_000).rev().map(|n| (format!("l{n:04}"), "v".repeat(100)));
        let kept = labels(many);
        assert_eq!(kept.len(), MAX_LABELS);
        assert!(kept.is_sorted() && &*kept[0].0 == "l0000");
        let big = labels([("a", "x".repeat(10)), ("b", "x".repeat(MAX_LABEL_BYTES)), ("c", String::new())]);
        assert_eq!(big.len(), 1);
    }

    #[test]
    fn of_the_environment_only_what_is_listed_is_kept() {
        let all = ["APP_VERSION=1=2", "PASSWORD=secret", "APP_VERSION_X=3"];
        assert_eq!(*env(&all, &["APP_VERSION".into()]), [("APP_VERSION".into(), "1=2".into())]);
        assert!(env(&all, &[]).is_empty());
    }

    #[test]
    fn a_pod_is_read_from_the_kubelets_labels() {
        let sandbox = [("io.kubernetes.pod.name", "web-0"), ("io.kubernetes.pod.namespace", "shop")];
        let found = pod(&labels(sandbox)).expect("a pod");
        assert_eq!((&*found.pod, &*found.namespace, &*found.container), ("web-0", "shop", "POD"));
        assert_eq!(pod(&labels([("com.docker.compose.project", "x")])), None);
    }

    #[test]
    fn ids_cannot_leave_their_place_in_a_path() {
        assert!(is_id("4f0c"));
        for bad in ["", "../info", "a/b", "a?b", "a%2f", &"a".repeat(129)] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
