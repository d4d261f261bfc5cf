//! End-to-end, conformance and adversarial tests of aicert.
