//! Where things are in the container of a job.

/// The folder that everything of a job is below.
pub const WORKSPACE_FOLDER: &str = "/workspace";
/// Where the source is.
pub const SOURCE_FOLDER: &str = "/workspace/src";
/// Where the resources are.
pub const RESOURCES_FOLDER: &str = "/workspace/resources";
/// Where the job leaves its outputs unless it says otherwise.
pub const OUTPUTS_FOLDER: &str = "/workspace/outputs";

/// Whether one of two normalized paths is the other or inside it.
pub(crate) fn overlap(a: &str, b: &str) -> bool {
    is_below(a, b) || is_below(b, a)
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_overlap_by_whole_components() {
        assert!(overlap("/workspace/src", "/workspace/src"));
        assert!(overlap("/workspace/src/a", "/workspace/src"));
        assert!(overlap("/workspace/src", "/workspace/src/a"));
        assert!(!overlap("/workspace/src", "/workspace/srcs"));
        assert!(!overlap("/workspace/src/a", "/workspace/src/b"));
    }
}
