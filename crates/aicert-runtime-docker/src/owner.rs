//! Which process made a container or image, so that those of dead processes can be found.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// Label with the job that a container or image was made for.
pub(crate) const JOB_LABEL: &str = "aicert.job";
/// Label with the process that made it.
pub(crate) const OWNER_LABEL: &str = "aicert.owner";

/// A process, named so that neither a reboot nor a reused process id can be mistaken for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    boot: String,
    namespace: u64,
    pid: u32,
    started: u64,
}

impl Owner {
    /// This process; `None` where `/proc` cannot be read.
    pub(crate) fn this_process() -> Option<Self> {
        let pid = std::process::id();
        Some(Self {
            boot: boot_id()?,
            namespace: namespace()?,
            pid,
            started: start_time(pid)?,
        })
    }

    /// The text of the label.
    pub(crate) fn to_label(&self) -> String {
        format!("{}:{}:{}:{}", self.boot, self.namespace, self.pid, self.started)
    }

    fn parse(label: &str) -> Option<Self> {
        let mut parts = label.split(':');
        let owner = Self {
            boot: parts.next()?.to_owned(),
            namespace: parts.next()?.parse().ok()?,
            pid: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(owner)
    }

    /// Whether the process is known to be gone. What cannot be known counts as alive: nobody's work is taken away.
    fn is_gone(&self) -> bool {
        match (boot_id(), namespace()) {
            (Some(boot), _) if boot != self.boot => true,
            (Some(_), Some(namespace)) if namespace == self.namespace => {
                start_time(self.pid) != Some(self.started)
            }
            _ => false,
        }
    }
}

/// Whether the process named by a label is known to be gone; a missing or unreadable label counts as gone.
pub(crate) fn is_abandoned(label: Option<&str>) -> bool {
    label.and_then(Owner::parse).is_none_or(|owner| owner.is_gone())
}

fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .map(|text| text.trim().to_owned())
}

fn namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/pid").ok().map(|data| data.ino())
}

/// Field 22 of `/proc/PID/stat` (proc(5)); the fields before it hold a name with arbitrary characters in parentheses.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_known_to_be_gone_is_abandoned() {
        let own = Owner::this_process().unwrap();
        assert_eq!(Owner::parse(&own.to_label()), Some(own.clone()));
        assert!(!is_abandoned(Some(&own.to_label())));

        let reused_pid = Owner {
            started: own.started + 1,
            ..own.clone()
        };
        let before_reboot = Owner {
            boot: "another".into(),
            ..own.clone()
        };
        let other_namespace = Owner {
            namespace: own.namespace + 1,
            started: own.started + 1,
            ..own
        };
        assert!(is_abandoned(Some(&reused_pid.to_label())));
        assert!(is_abandoned(Some(&before_reboot.to_label())));
        assert!(!is_abandoned(Some(&other_namespace.to_label())));
        for unreadable in [None, Some(""), Some("a:b:c:d"), Some("a:1:2:3:4")] {
            assert!(is_abandoned(unreadable), "{unreadable:?}");
        }
    }

    #[test]
    fn a_child_that_ended_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let owner = Owner {
            pid: child.id(),
            started: start_time(child.id()).unwrap(),
            ..Owner::this_process().unwrap()
        };
        assert!(!is_abandoned(Some(&owner.to_label())));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_abandoned(Some(&owner.to_label())));
    }
}
