//! What the fuzz targets share: the limit on memory, honest material, and comparing of texts.

/// Proofs, honest and forged, as the tests of the verifier make them.
#[allow(dead_code, unused_macros, unused_imports, clippy::unwrap_used)]
#[path = "../../crates/aicert-verify/tests/forgeries/support.rs"]
pub mod support;

/// Machines that boot, as the tests of the verifier make them.
#[allow(dead_code, unused_imports, clippy::unwrap_used)]
#[path = "../../crates/aicert-verify/tests/forgeries/machine.rs"]
pub mod machine;

/// What machines answer, as the tests of the verifier make it.
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../../crates/aicert-verify/tests/attestation/answer.rs"]
pub mod answer;

/// Certificates as the tests of evidence make them.
#[allow(
    dead_code,
    unused_macros,
    unused_imports,
    clippy::unwrap_used,
    clippy::print_stdout
)]
#[path = "../../crates/aicert-verify/tests/evidence/support.rs"]
pub mod evidence;

pub mod honest;
pub mod image;
pub mod nitro;

/// The most memory that one input may hold at a time, with what the target keeps, in bytes. More is a crash.
pub const MEMORY_LIMIT: usize = 64 << 20;

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, MEMORY_LIMIT);

/// JSON without its insignificant white space.
pub fn compact(json: &[u8]) -> Vec<u8> {
    let (mut in_string, mut escaped) = (false, false);
    let mut out = Vec::with_capacity(json.len());
    for &byte in json {
        if in_string {
            (in_string, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    out
}

/// Splits an input into parts, each with its length in two octets before it; the last part may be cut short.
pub fn parts(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let end = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (part, rest) = rest.split_at(end);
        parts.push(part);
        bytes = rest;
    }
    parts
}

/// What [`parts`] splits.
pub fn join(parts: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        let part = part.as_ref();
        // Seeds are certificates and signatures, which are far below 2^16 bytes.
        out.extend((part.len() as u16).to_be_bytes());
        out.extend(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_memory_than_allowed_is_not_given() {
        let mut held: Vec<Vec<u8>> = Vec::new();
        let allowed = (0..100).take_while(|_| {
            let mut block = Vec::new();
            let given = block.try_reserve_exact(1 << 20).is_ok();
            held.push(block);
            given
        });
        let allowed = allowed.count();
        assert!((60..64).contains(&allowed), "{allowed} MiB");
    }

    #[test]
    fn disks_are_repaired_where_they_have_a_table() {
        let disk = image::disk(&image::uki("252"), false);
        let mut changed = disk.clone();
        changed[512 + 16] ^= 1;
        changed[512 + 88] ^= 1;
        image::repair(&mut changed);
        assert_eq!(changed, disk);
    }

    #[test]
    fn honest_material_is_accepted() {
        for proof in honest::proofs() {
            support::check(&proof).unwrap();
        }
        let proof = aicert_verify::Unverified::new(nitro::proof());
        aicert_verify::verify(proof, &nitro::options()).unwrap();
        answer::attest(&answer::answer(&answer::unused())).unwrap();
        aicert_verify::nitro::verify(&nitro::document(), &nitro::expected()).unwrap();
        for log in honest::event_logs() {
            aicert_verify::eventlog::EventLog::parse(&log).unwrap();
        }
        for area in honest::public_areas() {
            aicert_verify::key::PublicArea::parse(&area).unwrap();
        }
        let options = aicert_verify::image::MeasureOptions::default();
        for stub in ["252", "257"] {
            let uki = image::uki(stub);
            aicert_verify::image::measure_uki(&uki, &options).unwrap();
            for fat32 in [false, true] {
                let disk = std::io::Cursor::new(image::disk(&uki, fat32));
                aicert_verify::image::measure(disk, &options).unwrap();
            }
        }
    }
}
