//! The GPUs of this machine, as their driver names them.

use aicert_core::event::Gpu;
use aicert_core::runtime::RuntimeErrorKind;
use aicert_core::spec::GpuRequest;

use crate::engine::Engine;
use crate::error::Fault;

/// The GPUs that a request means, which the engine must be able to give to a container.
pub(crate) async fn find(engine: &Engine, request: &GpuRequest) -> Result<Vec<Gpu>, Fault> {
    let present = crate::dependencies::blocking(present).await?;
    let chosen = choose(present, request)?;
    if !engine.facts.nvidia_runtime && !hook_is_installed() {
        return Err(Fault::told(
            RuntimeErrorKind::Unsupported,
            format!(
                "this machine has {} GPU(s), but its Docker engine cannot give them to containers: `docker info` lists no runtime `nvidia`",
                chosen.len()
            ),
            "install nvidia-container-toolkit, run `sudo nvidia-ctk runtime configure --runtime=docker` and restart Docker",
        ));
    }
    Ok(chosen)
}

fn choose(present: Vec<Gpu>, request: &GpuRequest) -> Result<Vec<Gpu>, Fault> {
    let found = present.len();
    let missing = |what: String| {
        let list: Vec<_> = present
            .iter()
            .map(|gpu| format!("{} ({})", gpu.uuid, gpu.model))
            .collect();
        let list = if list.is_empty() {
            "none".to_owned()
        } else {
            list.join(", ")
        };
        Fault::told(
            RuntimeErrorKind::NotFound,
            format!("{what}; this machine has {list}"),
            "ask for GPUs that are there (`nvidia-smi -L` lists them), or use another machine",
        )
    };
    match request {
        GpuRequest::All if found == 0 => Err(missing("all GPUs are asked for".into())),
        GpuRequest::All => Ok(present),
        GpuRequest::Count(count) => {
            let wanted = usize::try_from(*count).unwrap_or(usize::MAX);
            if wanted == 0 || wanted > found {
                return Err(missing(format!("{count} GPU(s) are asked for")));
            }
            Ok(present.into_iter().take(wanted).collect())
        }
        GpuRequest::Uuids(uuids) => {
            let mut chosen: Vec<Gpu> = Vec::new();
            for uuid in uuids {
                let gpu = present.iter().find(|gpu| gpu.uuid == *uuid);
                let gpu = gpu.ok_or_else(|| missing(format!("the GPU {uuid:?} is asked for")))?;
                if chosen.contains(gpu) {
                    return Err(missing(format!("the GPU {uuid:?} is asked for twice")));
                }
                chosen.push(gpu.clone());
            }
            if chosen.is_empty() {
                Err(missing("a list of no GPUs is asked for".into()))
            } else {
                Ok(chosen)
            }
        }
        other => Err(missing(format!(
            "GPUs are asked for in a way that this runtime does not know ({other:?})"
        ))),
    }
}

/// Engines before CDI find GPUs through this program alone, without a runtime of that name.
fn hook_is_installed() -> bool {
    ["/usr/bin", "/usr/local/bin", "/usr/sbin"].iter().any(|folder| {
        std::path::Path::new(folder)
            .join("nvidia-container-runtime-hook")
            .exists()
    })
}

#[cfg(not(feature = "nvidia"))]
fn present() -> Result<Vec<Gpu>, Fault> {
    Err(Fault::told(
        RuntimeErrorKind::Unsupported,
        "this aicert was built without support for GPUs",
        "build it with the feature `nvidia`",
    ))
}

#[cfg(feature = "nvidia")]
fn present() -> Result<Vec<Gpu>, Fault> {
    use nvml_wrapper::Nvml;
    use nvml_wrapper::error::NvmlError;

    let unreadable = |error: NvmlError| {
        Fault::told(
            RuntimeErrorKind::Unsupported,
            format!("the NVIDIA driver does not tell about the GPUs of this machine: {error}"),
            "look at what `nvidia-smi` says; after an update of the driver the machine must be restarted",
        )
    };
    let nvml = match Nvml::init() {
        Ok(nvml) => nvml,
        Err(NvmlError::LibloadingError(_) | NvmlError::DriverNotLoaded | NvmlError::LibraryNotFound) => {
            return Err(Fault::told(
                RuntimeErrorKind::NotFound,
                "GPUs are asked for, but this machine has no NVIDIA driver",
                "install the driver (`nvidia-smi` must list the GPUs) and nvidia-container-toolkit, or leave `gpus` out",
            ));
        }
        Err(error) => return Err(unreadable(error)),
    };
    let facts = || {
        let driver = nvml.sys_driver_version()?;
        (0..nvml.device_count()?)
            .map(|index| {
                let device = nvml.device_by_index(index)?;
                Ok(Gpu {
                    model: device.name()?,
                    uuid: device.uuid()?,
                    driver: driver.clone(),
                })
            })
            .collect::<Result<Vec<_>, NvmlError>>()
    };
    facts().map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Vec<Gpu> {
        let gpu = |uuid: &str| Gpu {
            model: "H200".into(),
            uuid: uuid.into(),
            driver: "570".into(),
        };
        vec![gpu("GPU-a"), gpu("GPU-b")]
    }

    fn uuids(request: &GpuRequest) -> Result<Vec<String>, String> {
        let chosen = choose(machine(), request).map_err(|fault| fault.to_string())?;
        Ok(chosen.into_iter().map(|gpu| gpu.uuid).collect())
    }

    #[test]
    fn what_is_asked_for_is_what_is_given() {
        assert_eq!(uuids(&GpuRequest::All).unwrap(), ["GPU-a", "GPU-b"]);
        assert_eq!(uuids(&GpuRequest::Count(1)).unwrap(), ["GPU-a"]);
        assert_eq!(
            uuids(&GpuRequest::Uuids(vec!["GPU-b".into()])).unwrap(),
            ["GPU-b"]
        );
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        for request in [
            GpuRequest::Count(3),
            GpuRequest::Count(0),
            GpuRequest::Uuids(vec!["GPU-c".into()]),
            GpuRequest::Uuids(vec!["GPU-a".into(), "GPU-a".into()]),
            GpuRequest::Uuids(vec![]),
        ] {
            let error = uuids(&request).unwrap_err();
            assert!(error.contains("GPU-a (H200), GPU-b (H200)"), "{error}");
        }
        let error = choose(Vec::new(), &GpuRequest::All).unwrap_err().to_string();
        assert!(error.ends_with("this machine has none"), "{error}");
    }
}
