//! What booting an image measures, computed and measured.

mod boots;
