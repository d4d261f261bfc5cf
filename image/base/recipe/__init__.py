"""The recipe of the base image; `image/base/build` runs it. docs/images.md says what comes out and why."""
