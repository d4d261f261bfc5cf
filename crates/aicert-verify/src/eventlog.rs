//! The TCG event log: what firmware, boot loader and kernel say that they measured.
