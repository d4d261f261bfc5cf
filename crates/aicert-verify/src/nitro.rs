//! Attestation documents of AWS NitroTPM.
