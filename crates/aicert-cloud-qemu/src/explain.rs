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
    let line = lines(console).find(|line| line.contains("verity") && line.contains("is corrupted"))?;
    let what = ["metadata block", "data block"]
        .into_iter()
        .find_map(|kind| Some(format!("{kind} {}", number(line.split_once(kind)?.1)?)))
        .unwrap_or_else(|| line.to_owned());
    Some(format!(
        "the root file system is not the one that the image was built with: {what} does not have the hash that the \
         kernel command line names, and the kernel refused to go on; write the image again from where it was published"
    ))
}

/// What init says last, when something that it needs is not there.
fn init(console: &str) -> Option<String> {
    let line = lines(console)
        .filter(|line| line.starts_with("aicert-init: "))
        .filter(|line| FAILURE_WORDS.iter().any(|word| line.contains(word)))
        .last()?;
    Some(format!(
        "the machine came up and could not go on: {}",
        line.trim_start_matches("aicert-init: ")
    ))
}

const FAILURE_WORDS: [&str; 4] = ["fatal", "cannot", "failed", "error"];

/// Linux, kernel/panic.c.
fn panicked(console: &str) -> Option<String> {
    let (_, why) = lines(console).find_map(|line| line.split_once("Kernel panic - not syncing: "))?;
    Some(format!(
        "the machine's kernel panicked: {}; the lines before it on the console say where",
        why.trim()
    ))
}

/// EDK II, MdeModulePkg/Universal/BdsDxe/BdsEntry.c.
fn nothing_to_boot(console: &str) -> Option<String> {
    const WORDS: [&str; 2] = [
        "No bootable option or device was found",
        "BdsDxe: failed to load Boot",
    ];
    lines(console).find(|line| WORDS.iter().any(|words| line.contains(words)))?;
    Some(
        "firmware found nothing to boot on the disk: the image has no /EFI/BOOT/BOOTX64.EFI that firmware takes, or is \
         not a disk image of aicert's"
            .into(),
    )
}

/// Lines without the time that the kernel puts before its own.
fn lines(console: &str) -> impl Iterator<Item = &str> {
    console.lines().map(|line| match line.strip_prefix('[') {
        Some(rest) => rest.split_once("] ").map_or(line, |(_, text)| text),
        None => line,
    })
}

fn number(text: &str) -> Option<u64> {
    let digits: String = text
        .trim_start()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}
