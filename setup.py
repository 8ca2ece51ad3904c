"""pip's view of the package; the metadata is in setup.cfg."""

from glob import glob

from setuptools import setup

SHARE = 'share/q_transformer_ros'

# colcon installs these through CMakeLists.txt; pip puts them at the same place below its prefix.
setup(
    data_files=[
        (SHARE, ['package.xml']),
        (f'{SHARE}/config', glob('config/*.json')),
        (f'{SHARE}/config/robots', glob('config/robots/*.yaml')),
        (f'{SHARE}/config/training', glob('config/training/*.yaml')),
        (f'{SHARE}/launch', glob('launch/*.launch.py')),
        (f'{SHARE}/msg', glob('msg/*.msg')),
    ],
)
