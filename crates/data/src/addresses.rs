//! Official addresses of the datasets that are fetched, and the published MD5 checksums of their archives. A mirror stands in for the
//! folder of an address.

pub(crate) const CIFAR10: &str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz";
pub(crate) const CIFAR10_MD5: &str = "c32a1d4ab5d03f1284b67883e8d87530";

pub(crate) const CIFAR100: &str = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz";
pub(crate) const CIFAR100_MD5: &str = "03b5dce01913d631647c71ecec9e9cb8";

pub(crate) const CUB200: &str = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz";
pub(crate) const CUB200_MD5: &str = "97eceeb196236b17998738112f37df78";

/// The folder of its four files, whose contents are checked when they are read, by checksums of the unpacked files.
pub(crate) const FASHION_MNIST: &str = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com";
