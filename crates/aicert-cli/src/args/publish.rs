//! The command line of the commands that put images into clouds, and take them away.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
  0    the image is there, and machines can be made from it
  1    it could not be published; the same command goes on with what is there
  2    misuse, or a file that is no image or cannot be read
  130  interrupted (143: terminated); the same command goes on with what is there")]
pub(crate) struct PublishArgs {
    /// A raw disk image, or the folder of `aicert image build`
    #[arg(value_name = "IMAGE|FOLDER", value_hint = ValueHint::AnyPath)]
    pub(crate) image: PathBuf,
    /// What to call it there [default: its name and what it was built from]
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) destination: DestinationArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
  0  nothing of that name is left
  1  something is left
  2  misuse")]
pub(crate) struct DiscardArgs {
    /// What it was called when it was published
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) destination: DestinationArgs,
}

/// Where images are put.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where")]
pub(crate) struct DestinationArgs {
    /// The cloud
    #[arg(long, value_enum, value_name = "CLOUD")]
    pub(crate) provider: CloudName,
    /// Azure and AWS: the region [default for AWS: $AWS_REGION or $AWS_DEFAULT_REGION]
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// Azure: the id of the subscription [default: $AZURE_SUBSCRIPTION_ID]
    #[arg(long, value_name = "ID")]
    pub(crate) subscription: Option<String>,
    /// Azure: the resource group of the gallery [default: aicert-images]
    #[arg(long, value_name = "NAME")]
    pub(crate) resource_group: Option<String>,
    /// Azure: the compute gallery [default: aicert]
    #[arg(long, value_name = "NAME")]
    pub(crate) gallery: Option<String>,
    /// Google: the id of the project [default: $GOOGLE_CLOUD_PROJECT]
    #[arg(long, value_name = "ID")]
    pub(crate) project: Option<String>,
    /// Google: the bucket that the image goes through
    #[arg(long, value_name = "NAME")]
    pub(crate) bucket: Option<String>,
}

/// The clouds, as the configuration names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CloudName {
    Azure,
    Aws,
    Gcp,
}
