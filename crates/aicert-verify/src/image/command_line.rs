//! The kernel command line, as systemd-stub hands it to the kernel.

use super::ImageError;

/// The command line in a `.cmdline` section.
///
/// systemd-stub reads UTF-8 up to the first NUL, replaces control characters by spaces, and cuts spaces off the end
/// (`xstrn8_to_16`, `mangle_stub_cmdline`). Newer versions do so at the beginning as well, and treat DEL as a space;
/// none can say characters beyond U+FFFF. Where they differ, and where somebody could be made to read another line
/// than the kernel does, the line is refused.
pub(super) fn read(section: &[u8]) -> Result<String, ImageError> {
    let fault = |offset: usize, reason: String| Err(ImageError::CommandLine { offset, reason });
    let end = section.iter().position(|byte| *byte == 0);
    let (text, padding) = section.split_at(end.unwrap_or(section.len()));
    if let Some(behind) = padding.iter().position(|byte| *byte != 0) {
        return fault(
            text.len() + behind,
            "there is something behind a NUL, which the kernel does not see".into(),
        );
    }
    let text = match str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => return fault(error.valid_up_to(), "it is not UTF-8".into()),
    };
    for (offset, character) in text.char_indices() {
        if character == '\u{7f}' || character > '\u{ffff}' {
            let code = u32::from(character);
            return fault(
                offset,
                format!("versions of systemd-stub differ in what they do with U+{code:04X}"),
            );
        }
    }
    if text.starts_with(|c: char| c <= ' ') && text.contains(|c: char| c > ' ') {
        return fault(
            0,
            "versions of systemd-stub differ in what they do with space before the first word".into(),
        );
    }
    let spaced: String = text
        .chars()
        .map(|character| if character < ' ' { ' ' } else { character })
        .collect();
    Ok(spaced.trim_end_matches(' ').to_owned())
}

/// The bytes that systemd-stub sets as load options and Linux hashes: UTF-16, with the final NUL.
pub(super) fn load_options(command_line: &str) -> Vec<u8> {
    command_line
        .encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect()
}
