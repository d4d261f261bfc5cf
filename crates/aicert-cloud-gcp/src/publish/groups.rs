//! Pieces in groups: an object is composed of so many others at most.

use crate::publish::checksum::Crc32c;

/// Of how many objects one is composed (Cloud Storage's documentation, "Composite objects").
const COMPONENTS: usize = 32;

/// The pieces in groups, each of which is put together first.
pub(super) struct Groups<'a> {
    folder: &'a str,
    pub(super) groups: Vec<Group>,
    pub(super) pieces: u64,
    pub(super) length: u64,
    pub(super) crc: Crc32c,
}

pub(super) struct Group {
    pub(super) name: String,
    pub(super) pieces: Vec<String>,
    pub(super) length: u64,
    pub(super) crc: Crc32c,
}

impl<'a> Groups<'a> {
    pub(super) fn new(folder: &'a str) -> Self {
        Self {
            folder,
            groups: Vec::new(),
            pieces: 0,
            length: 0,
            crc: Crc32c::default(),
        }
    }

    pub(super) fn add(&mut self, name: String, bytes: &[u8]) {
        if self
            .groups
            .last()
            .is_none_or(|group| group.pieces.len() == COMPONENTS)
        {
            self.groups.push(Group {
                name: format!("{}group-{:02}", self.folder, self.groups.len()),
                pieces: Vec::new(),
                length: 0,
                crc: Crc32c::default(),
            });
        }
        if let Some(group) = self.groups.last_mut() {
            group.pieces.push(name);
            group.length += bytes.len() as u64;
            group.crc.update(bytes);
        }
        self.pieces += 1;
        self.length += bytes.len() as u64;
        self.crc.update(bytes);
    }
}
