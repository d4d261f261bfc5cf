//! The types of events.

use std::fmt;

use serde::{Serialize, Serializer};

/// The type of an event (PFP 1.06, section 10.4.1). No digest covers it: only what an event's data is can tell that it is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(pub u32);

macro_rules! event_types {
    ($( $(#[$doc:meta])* $name:ident = $value:literal, $text:literal; )*) => {
        impl EventType {
            $( $(#[$doc])* pub const $name: Self = Self($value); )*

            /// The specification's name; nothing for a type that is not known.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $value => Some($text), )*
                    _ => None,
                }
            }

            /// Every type that is known.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];
        }
    };
}

event_types! {
    /// What the TPM was given before there was a log; deprecated.
    PREBOOT_CERT = 0x0000_0000, "EV_PREBOOT_CERT";
    /// Code that runs before the operating system.
    POST_CODE = 0x0000_0001, "EV_POST_CODE";
    /// Not used.
    UNUSED = 0x0000_0002, "EV_UNUSED";
    /// Says something without extending a PCR.
    NO_ACTION = 0x0000_0003, "EV_NO_ACTION";
    /// Firmware hands over.
    SEPARATOR = 0x0000_0004, "EV_SEPARATOR";
    /// Something was done, in words.
    ACTION = 0x0000_0005, "EV_ACTION";
    /// Data with a tag whose meaning its vendor defines.
    EVENT_TAG = 0x0000_0006, "EV_EVENT_TAG";
    /// The code that starts the chain of measurements.
    S_CRTM_CONTENTS = 0x0000_0007, "EV_S_CRTM_CONTENTS";
    /// The version of the code that starts the chain of measurements.
    S_CRTM_VERSION = 0x0000_0008, "EV_S_CRTM_VERSION";
    /// Microcode of the processor.
    CPU_MICROCODE = 0x0000_0009, "EV_CPU_MICROCODE";
    /// The platform's configuration.
    PLATFORM_CONFIG_FLAGS = 0x0000_000a, "EV_PLATFORM_CONFIG_FLAGS";
    /// A table of devices.
    TABLE_OF_DEVICES = 0x0000_000b, "EV_TABLE_OF_DEVICES";
    /// A digest that the caller chose.
    COMPACT_HASH = 0x0000_000c, "EV_COMPACT_HASH";
    /// Whatever boot loaders measure.
    IPL = 0x0000_000d, "EV_IPL";
    /// Partitions and parameters of boot loaders.
    IPL_PARTITION_DATA = 0x0000_000e, "EV_IPL_PARTITION_DATA";
    /// Code of another processor.
    NONHOST_CODE = 0x0000_000f, "EV_NONHOST_CODE";
    /// Configuration of another processor.
    NONHOST_CONFIG = 0x0000_0010, "EV_NONHOST_CONFIG";
    /// That there is another processor.
    NONHOST_INFO = 0x0000_0011, "EV_NONHOST_INFO";
    /// Devices were left out on purpose.
    OMIT_BOOT_DEVICE_EVENTS = 0x0000_0012, "EV_OMIT_BOOT_DEVICE_EVENTS";
    /// Code that runs before the operating system, with its name.
    POST_CODE2 = 0x0000_0013, "EV_POST_CODE2";
    /// The first of UEFI's types; no event has it.
    EFI_EVENT_BASE = 0x8000_0000, "EV_EFI_EVENT_BASE";
    /// A variable that configures firmware, Secure Boot's among them.
    EFI_VARIABLE_DRIVER_CONFIG = 0x8000_0001, "EV_EFI_VARIABLE_DRIVER_CONFIG";
    /// A variable that says what to boot.
    EFI_VARIABLE_BOOT = 0x8000_0002, "EV_EFI_VARIABLE_BOOT";
    /// An application was loaded: a boot loader, a unified kernel image, a kernel.
    EFI_BOOT_SERVICES_APPLICATION = 0x8000_0003, "EV_EFI_BOOT_SERVICES_APPLICATION";
    /// A driver was loaded.
    EFI_BOOT_SERVICES_DRIVER = 0x8000_0004, "EV_EFI_BOOT_SERVICES_DRIVER";
    /// A driver that stays was loaded.
    EFI_RUNTIME_SERVICES_DRIVER = 0x8000_0005, "EV_EFI_RUNTIME_SERVICES_DRIVER";
    /// The partition table of the disk that was booted from.
    EFI_GPT_EVENT = 0x8000_0006, "EV_EFI_GPT_EVENT";
    /// Firmware did something, in words.
    EFI_ACTION = 0x8000_0007, "EV_EFI_ACTION";
    /// A part of the firmware.
    EFI_PLATFORM_FIRMWARE_BLOB = 0x8000_0008, "EV_EFI_PLATFORM_FIRMWARE_BLOB";
    /// Tables that firmware hands to the operating system.
    EFI_HANDOFF_TABLES = 0x8000_0009, "EV_EFI_HANDOFF_TABLES";
    /// A part of the firmware, with its name.
    EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000_000a, "EV_EFI_PLATFORM_FIRMWARE_BLOB2";
    /// Tables that firmware hands to the operating system, with their name.
    EFI_HANDOFF_TABLES2 = 0x8000_000b, "EV_EFI_HANDOFF_TABLES2";
    /// A variable that says what to boot, hashed whole.
    EFI_VARIABLE_BOOT2 = 0x8000_000c, "EV_EFI_VARIABLE_BOOT2";
    /// The partition table of a disk, without what identifies one disk.
    EFI_GPT_EVENT2 = 0x8000_000d, "EV_EFI_GPT_EVENT2";
    /// Measured by hardware before the TPM was started.
    EFI_HCRTM_EVENT = 0x8000_0010, "EV_EFI_HCRTM_EVENT";
    /// The entry of a list of keys that allowed something to run.
    EFI_VARIABLE_AUTHORITY = 0x8000_00e0, "EV_EFI_VARIABLE_AUTHORITY";
    /// Firmware of a device, measured by the device.
    EFI_SPDM_FIRMWARE_BLOB = 0x8000_00e1, "EV_EFI_SPDM_FIRMWARE_BLOB";
    /// Configuration of a device, measured by the device.
    EFI_SPDM_FIRMWARE_CONFIG = 0x8000_00e2, "EV_EFI_SPDM_FIRMWARE_CONFIG";
    /// The policy by which devices are authenticated.
    EFI_SPDM_DEVICE_POLICY = 0x8000_00e3, "EV_EFI_SPDM_DEVICE_POLICY";
    /// What a device was authenticated by.
    EFI_SPDM_DEVICE_AUTHORITY = 0x8000_00e4, "EV_EFI_SPDM_DEVICE_AUTHORITY";
}

impl EventType {
    /// Whether the specification knows it.
    pub const fn known(self) -> bool {
        self.name().is_some()
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#010x}", self.0),
        }
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
