//! Whatever the bytes are: an answer, no panic, in bounded time and memory.

use std::io::Cursor;

use aicert_verify::image::{MeasureOptions, measure, measure_disk, measure_uki};
use proptest::prelude::*;

use crate::forge::*;

/// Changes to some bytes; small numbers and all ones are likelier than others.
fn changes() -> impl Strategy<Value = Vec<(usize, Vec<u8>)>> {
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..9),
        prop::sample::select(vec![vec![0; 8], vec![0xff; 4], vec![1, 0, 0, 0], vec![0, 0x80]]),
    ];
    prop::collection::vec((any::<usize>(), value), 1..6)
}

fn apply(bytes: &mut [u8], range: std::ops::Range<usize>, changes: &[(usize, Vec<u8>)]) {
    for (place, value) in changes {
        let place = range.start + place % (range.len() - value.len());
        put(bytes, place, value);
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let options = MeasureOptions::default();
        let _ = measure_uki(&bytes, &options);
        let _ = measure(Cursor::new(&bytes), &options);
        let _ = measure_disk(Cursor::new(&bytes), &options);
    }

    #[test]
    fn ukis_with_other_headers(changes in changes(), stub in 252..258u16) {
        let mut image = pe(&sections(&stub.to_string()));
        apply(&mut image, 0x200..0x600, &changes);
        let _ = measure_uki(&image, &MeasureOptions::default());
    }

    #[test]
    fn kernels_with_other_headers(changes in changes()) {
        let mut kernel = kernel(RELEASE);
        apply(&mut kernel, 0x200..0x600, &changes);
        let _ = measured(&with("257", ".linux", kernel));
    }

    #[test]
    fn any_command_line(line in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(image) = measured(&with("252", ".cmdline", line.clone())) {
            let shown = image.command_line.unwrap_or_default();
            prop_assert!(!shown.contains(|c: char| c < ' '));
            prop_assert!(shown.len() <= line.len());
        }
    }

    #[test]
    fn cut_ukis(length in 0..20_000usize) {
        let image = pe(&sections("257"));
        let length = length % image.len();
        // Nothing is left out that is not padding behind the last section.
        if let Err(error) = measure_uki(&image[..length], &MeasureOptions::default()) {
            prop_assert!(!error.to_string().is_empty());
        } else {
            prop_assert!(false, "{length} of {} bytes", image.len());
        }
    }

    #[test]
    fn disks_with_other_tables(changes in changes(), seals in any::<bool>()) {
        let mut disk = disk(&[("EFI/BOOT/BOOTX64.EFI", &pe(&sections("252")))]);
        apply(&mut disk, 512..1536, &changes);
        if seals {
            seal(&mut disk);
        }
        let _ = measure(Cursor::new(&disk), &MeasureOptions::default());
    }

    #[test]
    fn disks_with_other_file_systems(
        start in changes(), table in changes(), root in changes(), folders in changes(),
        which in prop::array::uniform4(any::<bool>()),
    ) {
        let mut disk = disk(&[("EFI/BOOT/BOOTX64.EFI", &pe(&sections("252")))]);
        let ranges = [(64 * 512..64 * 512 + 64, start), (FAT..FAT + 64, table), (ROOT..ROOT + 128, root), (DATA..DATA + 1024, folders)];
        for ((range, changes), on) in ranges.into_iter().zip(which) {
            if on {
                apply(&mut disk, range, &changes);
            }
        }
        let _ = measure(Cursor::new(&disk), &MeasureOptions::default());
    }
}
