//! What a bootable image measures, computed from its bytes alone.
