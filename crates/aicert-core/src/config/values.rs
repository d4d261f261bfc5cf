//! Values with a syntax of their own: sizes, durations, digests, paths in the container.

use std::time::Duration;

use crate::tree::TreePath;
use crate::workspace::{RESOURCES_FOLDER, SOURCE_FOLDER, overlap};

/// A number of bytes with its unit: `8GiB`.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let factor: u64 = match unit.trim() {
        "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000_u64.pow(2),
        "GB" => 1000_u64.pow(3),
        "TB" => 1000_u64.pow(4),
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor).filter(|bytes| *bytes > 0)
}

/// A time span: `90s`, `30m`, `2h`, `1d`, or several of them, larger units first.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut seconds, mut largest) = (text, 0_u64, u64::MAX);
    while !rest.is_empty() {
        let (number, tail) = split_number(rest)?;
        let unit = match tail.chars().next()? {
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        if unit >= largest {
            return None;
        }
        largest = unit;
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = tail[1..].trim_start();
    }
    // A year is far beyond any job, and far below what clocks cannot add.
    (1..=366 * 86_400)
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds))
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// `length` bytes in hexadecimal, after an optional prefix that names the algorithm; in lowercase.
pub(super) fn hexadecimal(text: &str, prefix: &str, length: usize) -> Option<String> {
    let digits = text.strip_prefix(prefix).unwrap_or(text);
    (digits.len() == 2 * length && digits.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| digits.to_ascii_lowercase())
}

/// The folder of the outputs: below `/workspace`, apart from what is measured as input.
pub(super) fn outputs_folder(text: &str) -> Result<String, String> {
    let path = text
        .strip_prefix("/workspace/")
        .ok_or("it must be below /workspace")?;
    let path: TreePath = path
        .strip_suffix('/')
        .unwrap_or(path)
        .parse()
        .map_err(|error: crate::tree::TreeError| error.to_string())?;
    let folder = format!("/workspace/{path}");
    for taken in [SOURCE_FOLDER, RESOURCES_FOLDER] {
        if overlap(&folder, taken) {
            return Err(format!("it must be apart from {taken}, which holds inputs"));
        }
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!(size("8GiB"), Some(8 << 30));
        assert_eq!(size("500 MB"), Some(500_000_000));
        for wrong in ["8", "GiB", "8G", "-1GiB", "0GiB", "99999999999TiB", "1.5GiB", ""] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("90s"), Some(Duration::from_secs(90)));
        for wrong in [
            "2",
            "0s",
            "30m1h",
            "1h1h",
            "h",
            "1w",
            "500d",
            "",
            "18446744073709551615d",
        ] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn outputs_stay_apart_from_inputs() {
        assert_eq!(
            outputs_folder("/workspace/outputs/").as_deref(),
            Ok("/workspace/outputs")
        );
        for wrong in [
            "/workspace",
            "/workspace/",
            "/workspace/src",
            "/workspace/src/x",
            "/workspace/resources",
            "/workspace/a/../src",
            "/etc",
            "outputs",
            "/workspace//x",
        ] {
            assert!(outputs_folder(wrong).is_err(), "{wrong}");
        }
        assert!(outputs_folder("/workspace/srcs").is_ok());
    }
}
