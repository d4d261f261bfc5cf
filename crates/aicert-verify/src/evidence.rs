//! A TPM quote with its certificates, outside of any proof.
