//! The root file system under dm-verity: each block that is read is checked against the root hash of the command line.

use crate::cmdline::Root;
use crate::device_mapper::{self, Device, Table};
use crate::disk::{Partition, SECTOR};
use crate::failure::{Failure, Outcome};

/// The size of blocks, of data and of the hash tree.
const BLOCK: u64 = 4096;

/// The size of a SHA-256 digest.
const DIGEST: u64 = 32;

const SECTORS: u64 = BLOCK / SECTOR;

/// Makes the device that the root file system is mounted from.
///
/// Two devices: the kernel gives a partition to nobody while somebody has its disk, and the scratch space is on the disk
/// without being a partition. So both take the disk, this one its sectors where the partition is.
pub(crate) fn open(partition: &Partition, root: &Root) -> Outcome<Device> {
    let needed = (root.blocks + tree_blocks(root.blocks)) * SECTORS;
    if partition.sectors < needed {
        return Err(Failure::new(
            format!(
                "the partition {} has {} sectors, and the command line speaks of a root file system of {needed}",
                partition.name, partition.sectors
            ),
            "this is the disk of another image",
        ));
    }
    let data = device_mapper::create(&Table {
        name: "aicert-root-data",
        target: "linear",
        sectors: needed,
        parameters: &format!("{} {}", partition.disk.number, partition.start),
        writable: false,
    })?;
    device_mapper::create(&Table {
        name: "aicert-root",
        target: "verity",
        sectors: root.blocks * SECTORS,
        parameters: &parameters(&data.number.to_string(), root),
        writable: false,
    })
}

/// The target's parameters (Linux, Documentation/admin-guide/device-mapper/verity.rst): the hash tree begins right behind
/// the data, and the kernel panics at the first block that does not match, so that nothing goes on with it.
fn parameters(device: &str, root: &Root) -> String {
    let Root { hash, salt, blocks } = root;
    let salt = if salt.is_empty() { "-" } else { salt };
    format!(
        "1 {device} {device} {BLOCK} {BLOCK} {blocks} {blocks} sha256 {hash} {salt} 1 panic_on_corruption"
    )
}

/// How many blocks the hash tree over so many blocks has.
fn tree_blocks(blocks: u64) -> u64 {
    let mut level = blocks;
    let mut all = 0;
    while level > 1 {
        level = level.div_ceil(BLOCK / DIGEST);
        all += level;
    }
    // A single block has a tree of one as well: its digest is not the root hash itself.
    all.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_kernel_needs() {
        let root = Root {
            hash: "ab".repeat(32),
            salt: String::new(),
            blocks: 77,
        };
        assert_eq!(
            parameters("254:0", &root),
            format!(
                "1 254:0 254:0 4096 4096 77 77 sha256 {} - 1 panic_on_corruption",
                "ab".repeat(32)
            )
        );
    }

    #[test]
    fn counts_the_tree() {
        for (blocks, tree) in [(1, 1), (128, 1), (129, 3), (16_384, 129), (16_385, 132)] {
            assert_eq!(tree_blocks(blocks), tree, "{blocks} blocks");
        }
    }
}
