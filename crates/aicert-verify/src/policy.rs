//! What an end user demands of a proof.
