//! Reading `aicert.yaml`.
