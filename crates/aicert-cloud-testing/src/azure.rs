//! A stand-in for the API of Azure Resource Manager.
