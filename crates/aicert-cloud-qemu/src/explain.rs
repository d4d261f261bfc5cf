//! What the end of a console says about why a machine has ended, or does not come up.

/// Says in words why a machine ended or hangs, as far as what it wrote to its console tells; nothing where that is unknown.
/// `console` is what [`console_log`](aicert_core::cloud::CloudProvider::console_log) returns.
pub fn explain_end(console: &str) -> Option<String> {
    EXPLANATIONS.iter().find_map(|explanation| explanation(console))
}

/// The first that knows something is believed: causes stand before their consequences.
const EXPLANATIONS: &[fn(&str) -> Option<String>] = &[corrupted, init, panicked, nothing_to_boot];

/// dm-verity (Linux, drivers/md/dm-verity-target.c, `verity_handle_err`): `… data block 12 is corrupted`.
fn corrupted(console: &str) -> Option<String> {
    let line = lines(console)
        .find(|line| line.contains("device-mapper: verity:") && line.contains("is corrupted"))?;
    let kind = ["metadata block", "data block"]
        .into_iter()
        .find(|kind| line.contains(kind))?;
    let (_, number) = line.split_once(kind)?;
    let number: u64 = number.split_ascii_whitespace().next()?.parse().ok()?;
    Some(format!(
        "the root file system is not the one that the image was built with: {kind} {number} does not have the hash that \
         follows from the kernel command line, and the kernel refused to go on; get the image again, and verify it"
    ))
}

/// What init says when it cannot go on, and before it turns the machine off (`aicert-init`, `power.rs` and `services.rs`).
fn init(console: &str) -> Option<String> {
    let said = || lines(console).filter_map(|line| line.strip_prefix("aicert-init: "));
    if let Some(why) = said().find_map(|line| line.strip_prefix("error: ")) {
        return Some(format!("the machine came up and could not go on: {why}"));
    }
    let (program, how) = said().find_map(|line| line.split_once(" ended: "))?;
    Some(format!(
        "`{program}`, which the machine is there for, ended: {how}; the machine turned itself off then"
    ))
}

/// Linux, kernel/panic.c.
fn panicked(console: &str) -> Option<String> {
    let (_, why) = lines(console).find_map(|line| line.split_once("Kernel panic - not syncing: "))?;
    Some(format!(
        "the machine's kernel panicked: {}; the lines before it on the console say where",
        why.trim()
    ))
}

/// EDK II, MdeModulePkg/Universal/BdsDxe/BdsEntry.c and MdeModulePkg/Library/UefiBootManagerLib/BmBoot.c.
fn nothing_to_boot(console: &str) -> Option<String> {
    const STARTS: &str = "BdsDxe: starting Boot";
    // What it has itself, where there is nothing else.
    const SHELL: &str = "\"EFI Internal Shell\"";
    const FAILS: [&str; 3] = [
        "No bootable option or device was found",
        "BdsDxe: failed to load Boot",
        "BdsDxe: failed to start Boot",
    ];
    let starts = |line: &str| line.contains(STARTS) && !line.contains(SHELL);
    // Entries that lead nowhere are tried before the one that does.
    let last = lines(console)
        .filter(|line| line.contains(STARTS) || FAILS.iter().any(|words| line.contains(words)))
        .last()?;
    (!starts(last)).then(|| {
        "firmware found nothing to boot on the disk: the image has no /EFI/BOOT/BOOTX64.EFI that firmware takes, or is \
         no disk image of aicert's"
            .into()
    })
}

/// Lines without the time that the kernel puts before its own.
fn lines(console: &str) -> impl Iterator<Item = &str> {
    console.lines().map(|line| {
        line.strip_prefix('[')
            .and_then(|rest| rest.split_once("] "))
            .map_or(line, |(_, text)| text)
            .trim_end()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_says(console: &str, words: &str) {
        let explanation = explain_end(console).unwrap();
        assert!(explanation.contains(words), "{explanation}");
    }

    #[test]
    fn a_changed_root_file_system_is_told_by_its_block() {
        let console = "[    4.012345] aicert-init: root file system on vda2\n\
                       [    4.101010] device-mapper: verity: 254:0: data block 1234 is corrupted\n\
                       [    4.101020] Kernel panic - not syncing: dm-verity device corrupted\n";
        assert_says(
            console,
            "not the one that the image was built with: data block 1234 does",
        );
        assert_says(
            &console.replace("data block", "metadata block"),
            ": metadata block 1234 does",
        );
        assert_says(
            "[    1.0] Kernel panic - not syncing: dm-verity device corrupted",
            "panicked: dm-verity device corrupted;",
        );
        // As hostile as can be.
        for odd in [
            "device-mapper: verity: is corrupted",
            "device-mapper: verity: data block is corrupted",
        ] {
            assert_eq!(explain_end(odd), None);
        }
    }

    #[test]
    fn what_init_says_is_told_and_no_other_error() {
        let console = "[    2.1] tpm_crb MSFT0101:00: error: something\n\
                       [    2.2] aicert-init: stage 1\n\
                       [    2.3] aicert-init: error: no disk has a partition \"aicert-root\": the disk is missing\n\
                       [    2.4] aicert-init: powering off\n";
        assert_says(
            console,
            "could not go on: no disk has a partition \"aicert-root\": the disk",
        );
        let ended = "[  9.1] aicert-init: aicert-server ended: with exit status 1; its messages are above\r\n\
                     [  9.2] aicert-init: powering off";
        assert_says(
            ended,
            "`aicert-server`, which the machine is there for, ended: with exit status 1",
        );
        assert_eq!(explain_end("[  9.1] aicert-init: started dockerd (80)\n"), None);
        assert_eq!(
            explain_end("aicert-server: aicert-init: error: not init's\n"),
            None
        );
    }

    #[test]
    fn a_disk_without_an_image_is_told() {
        let failed = "BdsDxe: failed to load Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x2,0x0): Not Found\n";
        let started = "BdsDxe: starting Boot0002 \"UEFI Misc Device 2\" from PciRoot(0x0)/Pci(0x3,0x0)\n";
        let shell = "BdsDxe: starting Boot0002 \"EFI Internal Shell\" from Fv(7CB8BDC9)/FvFile(7C04A583)\n";
        assert_says(failed, "firmware found nothing to boot");
        assert_eq!(explain_end(&[failed, started].concat()), None);
        assert_says(&[started, failed].concat(), "firmware found nothing to boot");
        assert_says(&[failed, shell].concat(), "firmware found nothing to boot");
        assert_says(
            "BdsDxe: No bootable option or device was found.\n",
            "nothing to boot",
        );
        assert_says(
            "[ 0.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
            "panicked: VFS: Unable to mount root fs",
        );
        assert_eq!(explain_end(""), None);
    }
}
